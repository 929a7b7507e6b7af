// SPDX-License-Identifier: MIT
/* Standard input, output and error as other programs leave them: closed, or not blocking. */
#ifndef BB_PROGRAMS_STANDARD_STREAMS_H
#define BB_PROGRAMS_STANDARD_STREAMS_H

#include <stdio.h>

/* Call first in main. Opens /dev/null for closed standard descriptors, so that no file of the program gets their numbers and
 * receives messages. Makes stdin, stdout and stderr wait on non-blocking descriptors instead of losing data to EAGAIN. fileno()
 * of them is -1: use STDIN_FILENO etc. */
void bb_standard_streams_open(void);
/* The descriptor of stdout or stderr. */
int bb_standard_descriptor(const FILE *stream);

#endif
