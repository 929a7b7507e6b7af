// SPDX-License-Identifier: MIT
/* A command that receives lines on its standard input during a run, and never delays the run. */
#ifndef BB_PROGRAMS_METRICS_COMMAND_H
#define BB_PROGRAMS_METRICS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct bb_metrics_command {
    pid_t pid; /* 0: not running */
    int fd;    /* its standard input, nonblocking */
    char *waiting;
    size_t size; /* bytes that did not fit into the pipe yet */
    int64_t dropped;
    bool closed; /* it no longer reads */
} bb_metrics_command;

/* Starts `sh -c text` in its own process group, so that Ctrl-C does not keep it from reading to the end; its output goes to
 * standard error. Returns false with errno on failure. */
bool bb_metrics_command_open(bb_metrics_command *command, const char *text);
/* Sends a line and a newline. If a megabyte is already waiting, the line is dropped and counted. Returns false for the first
 * line that it no longer reads. */
bool bb_metrics_command_send(bb_metrics_command *command, const char *line);
/* Sends the remaining lines, closes its standard input and waits up to 10 seconds for it to exit. Returns its exit status, -1
 * if it is still running, or 128 + a signal. */
int bb_metrics_command_close(bb_metrics_command *command);

#endif
