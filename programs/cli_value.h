// SPDX-License-Identifier: MIT
/* Values of options: from text and to text. */
#ifndef BB_PROGRAMS_CLI_VALUE_H
#define BB_PROGRAMS_CLI_VALUE_H

#include "bitbyte.h"
#include "cli_option.h"

/* Reads and checks `text` into the row's field; not for flags and lists. The message says what was expected and found. */
bb_status bb_cli_value_set(const bb_cli_row *row, const char *text, bb_error *err);
/* The value as a user would write it: "" for an unset string. Truncated to `size`. */
void bb_cli_value_text(const bb_cli_row *row, char *out, size_t size);
/* Decimal text that reads back as the same number, no longer than that needs. */
void bb_cli_double_text(double value, char *out, size_t size);

#endif
