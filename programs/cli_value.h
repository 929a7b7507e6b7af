// SPDX-License-Identifier: MIT
/* Converts option values from and to text. */
#ifndef BB_PROGRAMS_CLI_VALUE_H
#define BB_PROGRAMS_CLI_VALUE_H

#include "bitbyte.h"
#include "cli_option.h"

/* Parses and checks `text`, and sets the row's field. Not for flags and lists. */
bb_status bb_cli_value_set(const bb_cli_row *row, const char *text, bb_error *err);
/* Writes the value as a user would type it; "" for an unset string. Truncated to `size`. */
void bb_cli_value_text(const bb_cli_row *row, char *out, size_t size);
/* Returns the shortest decimal text that reads back as the same number. */
/* Returns whether choice i exists and is listed in help and messages. */
bool bb_cli_lists_choice(const bb_cli_option *option, int i);
void bb_cli_double_text(double value, char *out, size_t size);

#endif
