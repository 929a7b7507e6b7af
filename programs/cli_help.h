// SPDX-License-Identifier: MIT
/* Help text, generated from a command's option table. */
#ifndef BB_PROGRAMS_CLI_HELP_H
#define BB_PROGRAMS_CLI_HELP_H

#include <stdio.h>

#include "cli_option.h"

/* Shows the current values of the options as defaults. */
void bb_cli_help(const bb_cli *cli, FILE *out);

#endif
