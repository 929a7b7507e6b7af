// SPDX-License-Identifier: MIT
/* Handles standard input, output and error that are closed or nonblocking. */
#ifndef BB_PROGRAMS_STANDARD_STREAMS_H
#define BB_PROGRAMS_STANDARD_STREAMS_H

#include <stdio.h>

/* Must be called first in main. Opens /dev/null for closed standard descriptors, so that no other file gets their numbers and
 * receives messages. Makes stdin, stdout and stderr wait on nonblocking descriptors instead of losing data to EAGAIN; a signal that
 * requests a stop (signals.h) ends the wait for input with an error. Their fileno() is -1: use STDIN_FILENO etc. */
void bb_standard_streams_open(void);
/* Returns the descriptor of stdout or stderr. */
int bb_standard_descriptor(const FILE *stream);

#endif
