// SPDX-License-Identifier: MIT
/* Error messages and exit statuses of commands. */
#include "cli_message.h"

#include <stdarg.h>
#include <stdio.h>

static bb_error *held; /* receives messages; NULL: standard error */

void bb_cli_redirect(bb_error *to) { held = to; }

static int say(const bb_cli_command *command, int exit_status, const char *fmt, va_list args) {
    if (held) {
        held->code = exit_status == BB_EXIT_USAGE ? BB_ERR_ARGUMENT : BB_ERR_IO;
        vsnprintf(held->message, sizeof held->message, fmt, args);
        return exit_status;
    }
    fflush(stdout);
    fprintf(stderr, "bitbyte %s: ", command->name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    return exit_status;
}

int bb_cli_usage_error(const bb_cli_command *command, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(command, BB_EXIT_USAGE, fmt, args);
    va_end(args);
    if (!held) fprintf(stderr, "See 'bitbyte help %s'.\n", command->name);
    return BB_EXIT_USAGE;
}

int bb_cli_failure(const bb_cli_command *command, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(command, BB_EXIT_FAILURE, fmt, args);
    va_end(args);
    return BB_EXIT_FAILURE;
}

int bb_cli_fail(const bb_cli_command *command, const bb_error *err) {
    bb_cli_failure(command, "%s", err->message);
    if (held) held->code = err->code;
    return err->code == BB_ERR_ARGUMENT ? BB_EXIT_USAGE : BB_EXIT_FAILURE;
}
