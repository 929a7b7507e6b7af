// SPDX-License-Identifier: MIT
/* Answers in OpenAI's format: whole, or as server-sent events. Call with the engine's lock held. */
#ifndef BB_PROGRAMS_ANSWER_H
#define BB_PROGRAMS_ANSWER_H

#include <stdio.h>

#include "api.h"

/* Returns the answer to a finished request as malloc'd JSON; NULL: it failed, see `error`. */
char *bb_answer_whole(const bb_request *request, const char *model_name, bb_api_error *error);

/* Writes the new tokens as events of text/event-stream; "data: [DONE]" ends the stream and sets request->done_sent. A character
 * is never split; invalid UTF-8 becomes U+FFFD. */
void bb_answer_events(bb_request *request, const char *model_name, FILE *out);

/* Encodes bytes in base64, malloc'd. */
char *bb_base64(const uint8_t *data, size_t size);

#endif
