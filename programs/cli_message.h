// SPDX-License-Identifier: MIT
/* How a command says that it failed, and which exit status it ends with. */
#ifndef BB_PROGRAMS_CLI_MESSAGE_H
#define BB_PROGRAMS_CLI_MESSAGE_H

#include "bitbyte.h"
#include "cli_option.h"

/* Prints "bitbyte NAME: message" and where help is; returns BB_EXIT_USAGE. */
int bb_cli_usage_error(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints "bitbyte NAME: message" and returns the exit status for the code: an impossible argument is a usage error, every
 * other one a failure. */
int bb_cli_fail(const bb_cli_command *command, const bb_error *err);
/* The same for a failure in words; returns BB_EXIT_FAILURE. */
int bb_cli_failure(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From now on messages go to `held` instead of standard error; NULL: to standard error again. */
void bb_cli_hold(bb_error *held);

#endif
