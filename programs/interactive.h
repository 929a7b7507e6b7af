// SPDX-License-Identifier: MIT
/* bitbyte generate --interactive: a conversation in one session. */
#ifndef BB_PROGRAMS_INTERACTIVE_H
#define BB_PROGRAMS_INTERACTIVE_H

#include "generate_options.h"

typedef struct bb_interactive {
    const bb_generation *generation;
    bb_session *session; /* may already contain text */
    bb_bytes line_prefix, line_suffix;
    bool metrics;
} bb_interactive;

/* Allows signals to cancel reading. Must be called before bb_session_open. */
void bb_interactive_prepare(bb_session_options *options);
/* Answers each line of standard input until its end. Returns the exit status, or -1 with err. */
int bb_interactive_run(bb_interactive *i, bb_error *err);

#endif
