// SPDX-License-Identifier: MIT
/* bb_session_*: a text that is fed and generated in turn; and bb_generate on top of it. */
#include <stdlib.h>

#include "core/clock.h"
#include "core/options.h"
#include "inference/decode.h"

struct bb_session {
    bb_context context;
    bb_draft draft;
    bb_pass pass;
    uint64_t drawn;        /* index of the next draw */
    uint64_t marked_drawn; /* index at the mark */
    int64_t fed;           /* bytes fed since the last generate call, and the time to read them */
    double fed_seconds;
};

BB_OPTIONS_DEFAULTS(bb_session_options);

bb_status bb_session_open(bb_model *model, const bb_session_options *given, bb_session **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_session_options, o, given);
    bb_session *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a session");
    bb_status status =
        bb_context_open(model, o->context_length ? o->context_length : model->trained_length, o->kv_cache, &s->context, err);
    if (status == BB_OK) {
        s->context.on_read = o->on_read;
        s->context.user = o->user;
        status = bb_draft_open(o->draft, s->context.cache.kv.capacity, &s->draft, err);
    }
    if (status == BB_OK) status = bb_pass_open(model, 1, &s->pass, err);
    if (status == BB_OK)
        *out = s;
    else
        bb_session_close(s);
    return status;
}

void bb_session_close(bb_session *s) {
    if (!s) return;
    bb_context_close(&s->context);
    bb_draft_close(&s->draft);
    bb_pass_close(&s->pass);
    free(s);
}

bb_status bb_session_feed(bb_session *s, const uint8_t *bytes, size_t count, bb_error *err) {
    BB_REQUIRE("session", s);
    if (count == 0) return BB_OK;
    if (!bytes || count > INT64_MAX)
        return bb_fail(err, BB_ERR_ARGUMENT, "bb_session_feed: bytes is NULL, and count is %zu", count);
    double begin = bb_clock_seconds();
    bb_context_append(&s->context, bytes, (int64_t)count);
    BB_TRY(bb_context_read(&s->context, 1, err));
    s->fed += (int64_t)count;
    s->fed_seconds += bb_clock_seconds() - begin;
    return BB_OK;
}

int64_t bb_session_length(const bb_session *s) { return s ? s->context.end : 0; }

bb_status bb_session_mark(bb_session *s, bb_error *err) {
    BB_REQUIRE("session", s);
    s->marked_drawn = s->drawn;
    return bb_context_set_mark(&s->context, err);
}

bb_status bb_session_rewind(bb_session *s, bb_error *err) {
    BB_REQUIRE("session", s);
    if (!s->context.mark.text) return bb_fail(err, BB_ERR_ARGUMENT, "there is no mark to return to");
    bb_context_return(&s->context);
    s->drawn = s->marked_drawn;
    return bb_context_read(&s->context, 1, err);
}

void bb_session_clear(bb_session *s) {
    if (!s) return;
    bb_context_clear(&s->context);
    s->drawn = 0;
    s->fed = 0;
    s->fed_seconds = 0;
}

bb_status bb_session_generate(bb_session *s, const bb_generate_options *given, bb_generate_metrics *metrics, bb_error *err) {
    BB_REQUIRE("session, options", s, given);
    BB_OPTIONS_READ(bb_generate_options, o, given);
    bb_decode d, *const only = &d;
    BB_TRY(bb_decode_open(&s->context, &s->draft, o, NULL, s->drawn, &d, err));
    d.m.prompt_bytes = s->fed;
    d.m.prompt_seconds = s->fed_seconds;
    s->fed = 0;
    s->fed_seconds = 0;
    d.over = o->max_new_bytes == 0;
    while (!d.over) bb_decode_step(&s->pass, &only, 1);
    bb_status status = d.interrupted ? BB_ERR_INTERRUPTED : d.status;
    if (status != BB_OK) *err = d.error;
    bb_decode_close(&d, status == BB_OK);
    s->drawn = d.drawn;
    if (metrics) *metrics = d.m;
    return status;
}

bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *given,
                      bb_generate_metrics *metrics, bb_error *err) {
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_generate_options, o, given);
    bb_session_options session_options;
    bb_session *session;
    bb_session_options_default(&session_options);
    session_options.context_length = o->context_length;
    session_options.kv_cache = o->kv_cache;
    session_options.draft = o->draft;
    BB_TRY(bb_session_open(model, &session_options, &session, err));
    bb_status status = bb_session_feed(session, prompt, prompt_length, err);
    if (status == BB_OK) status = bb_session_generate(session, o, metrics, err);
    bb_session_close(session);
    return status;
}
