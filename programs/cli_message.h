// SPDX-License-Identifier: MIT
/* Error messages and exit statuses of commands. */
#ifndef BB_PROGRAMS_CLI_MESSAGE_H
#define BB_PROGRAMS_CLI_MESSAGE_H

#include "bitbyte.h"
#include "cli_option.h"

/* Prints "bitbyte NAME: message" and how to get help. Returns BB_EXIT_USAGE. */
int bb_cli_usage_error(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints "bitbyte NAME: message". Returns BB_EXIT_USAGE for BB_ERR_ARGUMENT, else BB_EXIT_FAILURE. */
int bb_cli_fail(const bb_cli_command *command, const bb_error *err);
/* Prints a formatted message in the same way. Returns BB_EXIT_FAILURE. */
int bb_cli_failure(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Redirects messages to `held`; NULL: back to standard error. */
void bb_cli_redirect(bb_error *held);

#endif
