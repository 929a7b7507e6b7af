// SPDX-License-Identifier: MIT
/* Help, made from a command's table. */
#ifndef BB_PROGRAMS_CLI_HELP_H
#define BB_PROGRAMS_CLI_HELP_H

#include <stdio.h>

#include "cli_option.h"

/* Defaults are the values that the options have now. */
void bb_cli_help(const bb_cli *cli, FILE *out);

#endif
