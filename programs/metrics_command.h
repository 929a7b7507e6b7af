// SPDX-License-Identifier: MIT
/* A command that gets lines on its standard input while a run goes on, and never holds the run up. */
#ifndef BB_PROGRAMS_METRICS_COMMAND_H
#define BB_PROGRAMS_METRICS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct bb_metrics_command {
    pid_t pid; /* 0: not running */
    int fd;    /* its standard input, non-blocking */
    char *waiting;
    size_t size; /* bytes that the pipe has no room for yet */
    int64_t dropped;
    bool closed; /* it does not read any more */
} bb_metrics_command;

/* Starts `sh -c text` in a process group of its own, so that Ctrl-C lets it read to the end; what it prints goes to standard
 * error. False: see errno. */
bool bb_metrics_command_open(bb_metrics_command *command, const char *text);
/* Sends a line and a newline. A line that finds a megabyte waiting is dropped and counted. The first line that it no longer reads
 * gives false. */
bool bb_metrics_command_send(bb_metrics_command *command, const char *line);
/* Sends what is left, closes its standard input and waits for its end, for at most 10 seconds. Returns its exit status, -1 when
 * it goes on, 128 + a signal. */
int bb_metrics_command_close(bb_metrics_command *command);

#endif
