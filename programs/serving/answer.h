// SPDX-License-Identifier: MIT
/* Answers in OpenAI's form: whole, or as server-sent events. Called with the engine's lock held. */
#ifndef BB_PROGRAMS_ANSWER_H
#define BB_PROGRAMS_ANSWER_H

#include <stdio.h>

#include "api.h"

/* The answer to a request that has ended, as JSON; malloc'd. NULL: it failed, see `error`. d_model: of the model. */
char *bb_answer_whole(const bb_request *request, const char *model_name, int d_model, bb_api_error *error);

/* Writes what is new as events of text/event-stream; "data: [DONE]" ends them, and sets request->done_sent. A character is never
 * split; what is no UTF-8 comes as U+FFFD. */
void bb_answer_events(bb_request *request, const char *model_name, FILE *out);

/* Raw bytes in base64, malloc'd. */
char *bb_base64(const uint8_t *data, size_t size);

#endif
