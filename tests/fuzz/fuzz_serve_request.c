// SPDX-License-Identifier: MIT
/* Any bytes as the body of a request to the HTTP server, the first one choosing which: it is refused with a message that is JSON, or
 * becomes a request within the server's limits. And what a model may write after it, as events and as a whole answer. */
#include <stdlib.h>
#include <string.h>

#include "serving/answer.h"

enum { MAX_CHOICES = 8, CONTEXT = 64, TOKENS = 40 };

static void check(const bb_request *r) {
    if (r->choice_count < 1 || r->choice_count > MAX_CHOICES || r->choice_count != r->prompt_count * r->n) abort();
    if (r->options.max_new_bytes < 0 || r->options.max_new_bytes > 1000 || r->top < 0 || r->top > 256) abort();
    for (int i = 0; i < r->options.stop_count; i++)
        if (r->options.stops[i].size < 1) abort();
}

/* Bytes of the input, as if the model had written them. */
static void write_texts(bb_request *r, const uint8_t *data, size_t size, FILE *out) {
    for (int i = 0; i < r->choice_count; i++) {
        bb_choice *c = &r->choices[i];
        c->capacity = TOKENS;
        c->tokens = calloc(TOKENS, sizeof *c->tokens);
        c->top = calloc(TOKENS * (size_t)r->top + 1, sizeof *c->top);
        c->embedding_size = 4;
        c->embedding = calloc(c->embedding_size, sizeof *c->embedding);
        if (!c->tokens || !c->top || !c->embedding) abort();
        for (size_t k = 0; k < TOKENS && k < size; k++) {
            c->tokens[c->count++] = (bb_token){.byte = data[size - 1 - k], .top_count = r->top, .logprob = -1.5};
            if (k % 7 == 0) bb_answer_events(r, "model", out);
        }
        c->ended = true;
        r->running--;
    }
    bb_answer_events(r, "model", out);
    if (!r->done_sent) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const bb_api_limits limits = {
        .max_new_bytes = 1000, .max_choices = MAX_CHOICES, .context_length = CONTEXT, .chat_template = "{role}: {content}\n"};
    bb_request *r;
    bb_api_error error;
    if (size < 1) return 0;
    bb_request_kind kind = (bb_request_kind)(data[0] % 4);
    if (!bb_api_parse(kind, (const char *)data + 1, size - 1, &limits, &r, &error)) {
        char *text = bb_api_error_text(&error);
        json_t *json = text ? json_loads(text, 0, NULL) : NULL;
        if (!json || error.status < 400) abort();
        json_decref(json);
        free(text);
        return 0;
    }
    check(r);
    char *events = NULL;
    size_t event_bytes = 0;
    FILE *out = open_memstream(&events, &event_bytes);
    if (!out) abort();
    write_texts(r, data, size, out);
    fclose(out);
    json_t *valid = json_stringn(events, event_bytes); /* NULL where it is no UTF-8: a character was split */
    char *whole = bb_answer_whole(r, "model", &error);
    if (!valid || !whole) abort();
    json_decref(valid);
    free(whole);
    free(events);
    bb_request_free(r);
    return 0;
}
