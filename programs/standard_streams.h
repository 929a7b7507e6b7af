// SPDX-License-Identifier: MIT
/* Standard input, output and error as other programs leave them: closed, or not blocking. */
#ifndef BB_PROGRAMS_STANDARD_STREAMS_H
#define BB_PROGRAMS_STANDARD_STREAMS_H

#include <stdio.h>

/* First thing in main. A closed standard descriptor is opened on /dev/null: else the next file that the program opens gets its
 * number, and messages end up in that file. stdin, stdout and stderr become streams that wait where a descriptor is not
 * blocking, instead of losing data to EAGAIN. fileno() of them is -1: use STDIN_FILENO and so on. */
void bb_standard_streams_open(void);
/* The descriptor of stdout or stderr. */
int bb_standard_descriptor(const FILE *stream);

#endif
