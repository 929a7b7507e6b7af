// SPDX-License-Identifier: MIT
/* Values of options: from text, to text, from and to JSON. Used by the parser and the help alone. */
#ifndef BB_PROGRAMS_CLI_VALUE_H
#define BB_PROGRAMS_CLI_VALUE_H

#include "cli.h"

/* Reads and checks `text`; not for flags and lists. The message says what was expected and found. */
bb_status bb_cli_value_set(const bb_cli_option *option, const char *text, bb_error *err);
/* The value as a user would write it: "" for an unset string. Cut to `size`. */
void bb_cli_value_text(const bb_cli_option *option, char *out, size_t size);

#endif
