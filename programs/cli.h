// SPDX-License-Identifier: MIT
/* Command lines: one table a command gives its parser, its checks, its help and its JSON. */
#ifndef BB_PROGRAMS_CLI_H
#define BB_PROGRAMS_CLI_H

#include "cli_message.h"
#include "cli_option.h"

/* Reads a command line into `args`, the command's argument struct, which holds the defaults. argv[0] is the command's name.
 * Returns BB_CLI_CONTINUE, or the exit status to end with: 0 after --help (on stdout), 2 after a usage error (said on stderr).
 * bb_cli_free in every case. */
int bb_cli_parse(bb_cli *cli, const bb_cli_command *command, void *args, int argc, char **argv);
/* Frees the items of the lists that were given. */
void bb_cli_free(bb_cli *cli);
bool bb_cli_given(const bb_cli *cli, const char *name);
/* Where the option was given, says on standard error that it has no effect, and why. */
void bb_cli_unused(const bb_cli *cli, const char *name, const char *why);

#endif
