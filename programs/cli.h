// SPDX-License-Identifier: MIT
/* Command lines: one table per command drives parsing, checks, help and JSON. */
#ifndef BB_PROGRAMS_CLI_H
#define BB_PROGRAMS_CLI_H

#include "cli_message.h"
#include "cli_option.h"

/* Parses a command line into `args`, the command's argument struct, which holds the defaults. argv[0] is the command name.
 * Returns BB_CLI_CONTINUE or an exit status: 0 after --help (on stdout), 2 after a usage error (on stderr). Call bb_cli_free in
 * every case. */
int bb_cli_parse(bb_cli *cli, const bb_cli_command *command, void *args, int argc, char **argv);
/* Frees the items of list options. */
void bb_cli_free(bb_cli *cli);
bool bb_cli_given(const bb_cli *cli, const char *name);
/* If the option was given, prints a note on standard error that it has no effect, and why. */
void bb_cli_unused(const bb_cli *cli, const char *name, const char *why);

#endif
