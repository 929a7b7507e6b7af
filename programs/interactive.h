// SPDX-License-Identifier: MIT
/* bitbyte generate --interactive: a conversation in one session. */
#ifndef BB_PROGRAMS_INTERACTIVE_H
#define BB_PROGRAMS_INTERACTIVE_H

#include "generate_options.h"

typedef struct bb_interactive {
    const bb_generation *generation;
    bb_session *session; /* with a text in it or without */
    bb_bytes line_prefix, line_suffix;
    bool metrics;
} bb_interactive;

/* What ends or interrupts a session's reading: call it before bb_session_open. */
void bb_interactive_prepare(bb_session_options *options);
/* Lines from standard input, each continued, until its end. Returns the exit status, or -1 with err. */
int bb_interactive_run(bb_interactive *i, bb_error *err);

#endif
