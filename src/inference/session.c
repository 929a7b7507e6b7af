// SPDX-License-Identifier: MIT
/* bb_session_*: text that is fed and generated in turn; and bb_generate on top of it. */
#include <stdlib.h>

#include "core/clock.h"
#include "core/math.h"
#include "inference/draft.h"
#include "inference/sampler.h"
#include "inference/stop.h"

struct bb_session {
    bb_context context;
    bb_draft draft;
    uint64_t drawn;        /* number of the next draw */
    uint64_t marked_drawn; /* at the mark */
    int64_t fed;           /* bytes fed since the last generate, and the time to read them */
    double fed_seconds;
};

/* One call of generate. */
typedef struct run {
    bb_session *session;
    const bb_generate_options *options;
    bb_sampler sampler;
    bb_stop stop;
    int32_t seen[BB_SAMPLER_MAX_VOCAB]; /* counts among the last repetition_window bytes */
    uint64_t first_draw;
    int64_t shown; /* text up to here went to on_byte */
    double begin, logprobs;
    bool over, refused; /* ended; ended by on_byte */
    bb_generate_metrics m;
} run;

void bb_generate_options_default(bb_generate_options *o) {
    if (!o) return;
    *o = (bb_generate_options){
        .max_new_bytes = 300, .repetition_penalty = 1, .repetition_window = 64, .temperature = 0.9, .top_p = 1};
}

void bb_session_options_default(bb_session_options *o) {
    if (o) *o = (bb_session_options){.context_length = 0};
}

bb_status bb_session_open(bb_model *model, const bb_session_options *o, bb_session **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, o);
    bb_session *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a session");
    bb_status status =
        bb_context_open(model, o->context_length ? o->context_length : model->trained_length, o->kv_cache, &s->context, err);
    if (status == BB_OK) {
        s->context.on_read = o->on_read;
        s->context.user = o->user;
        status = bb_draft_open(o->draft, s->context.cache.kv.capacity, &s->draft, err);
        if (status != BB_OK) bb_context_close(&s->context);
    }
    if (status != BB_OK) {
        free(s);
        return status;
    }
    *out = s;
    return BB_OK;
}

void bb_session_close(bb_session *s) {
    if (!s) return;
    bb_context_close(&s->context);
    bb_draft_close(&s->draft);
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
    if (!s->context.mark.text) return bb_fail(err, BB_ERR_ARGUMENT, "there is no mark to go back to");
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

/* The last byte enters the repetition window, the oldest leaves it. */
static void count_seen(run *r) {
    const bb_context *c = &r->session->context;
    int64_t left = c->end - 1 - r->options->repetition_window;
    r->seen[*bb_context_at(c, c->end - 1)]++;
    if (left >= c->base) r->seen[*bb_context_at(c, left)]--;
}

static void count_all_seen(run *r) {
    const bb_context *c = &r->session->context;
    int64_t from = c->end - r->options->repetition_window;
    for (int64_t p = from > c->base ? from : c->base; p < c->end; p++) r->seen[*bb_context_at(c, p)]++;
}

/* Passes bytes before `end` to on_byte, which may stop the generation. */
static void show(run *r, int64_t end) {
    bb_context *c = &r->session->context;
    while (r->shown < end && !r->refused) {
        uint8_t byte = *bb_context_at(c, r->shown++);
        r->refused = r->options->on_byte && !r->options->on_byte(r->options->user, byte);
    }
    r->over |= r->refused;
}

/* A drawn byte was appended to the text. */
static void take(run *r) {
    bb_session *s = r->session;
    bb_context *c = &s->context;
    int64_t end = c->end;
    s->drawn++;
    r->m.new_bytes++;
    if (r->m.new_bytes == 1) r->m.first_byte_seconds = r->m.prompt_seconds + bb_clock_seconds() - r->begin;
    int stop = bb_stop_push(&r->stop, *bb_context_at(c, end - 1));
    if (stop >= 0) {
        r->m.stop = stop;
        show(r, end - (int64_t)r->options->stops[stop].size);
        r->over = true;
        return;
    }
    show(r, end - (int64_t)bb_stop_held(&r->stop));
    r->over |= r->m.new_bytes >= r->options->max_new_bytes;
    if (r->sampler.repetition_penalty > 1 || r->sampler.repetition_penalty < 1) count_seen(r);
    if (r->options->speculate) bb_draft_push(&s->draft, c);
}

/* Draws what follows byte `at` - 1, from the logits of the last rows read. The text and the cache already hold `guesses` bytes
 * from `at` on: those that are drawn stay, and the text ends with the first one that differs or lies beyond them. */
static void draw_rows(run *r, int64_t at, int guesses) {
    bb_session *s = r->session;
    bb_context *c = &s->context;
    int vocab = c->model->config.vocab_size;
    uint8_t guessed[BB_DRAFT_MAX];
    for (int i = 0; i < guesses; i++) guessed[i] = *bb_context_at(c, at + i);
    c->end = at;
    bool right = true;
    int accepted = 0;
    for (int row = 0; right && row <= guesses && !r->over; row++) {
        const float *logits = c->logits + row * vocab;
        uint8_t byte = (uint8_t)bb_sampler_draw(&r->sampler, logits, vocab, r->seen, s->drawn);
        r->logprobs += bb_sampler_logprob(logits, vocab, byte);
        right = row < guesses && byte == guessed[row];
        accepted += right;
        bb_context_append(c, &byte, 1);
        take(r);
    }
    c->cache.length = at + accepted - c->first;
    r->m.accepted += accepted;
}

static bb_status next_bytes(run *r, bb_error *err) {
    bb_session *s = r->session;
    bb_context *c = &s->context;
    uint8_t guess[BB_DRAFT_MAX];
    int guesses = 0;
    int64_t at = c->end, room = bb_context_free(c), left = r->options->max_new_bytes - r->m.new_bytes - 1;
    const bb_draft_request request = {.sampler = &r->sampler,
                                      .seen = r->seen,
                                      .index = s->drawn,
                                      .max = bb_min(room, left),
                                      .always = r->options->speculate == BB_SPECULATE_ALWAYS};
    if (r->options->speculate && r->m.new_bytes > 0) BB_TRY(bb_draft_guess(&s->draft, c, &request, guess, &guesses, err));
    if (guesses > 0) bb_context_append(c, guess, guesses);
    double begin = bb_clock_seconds();
    bool slides = room < 0;
    bool later = r->m.new_bytes > 0;
    BB_TRY(bb_context_read(c, guesses + 1, err));
    double seconds = bb_clock_seconds() - begin;
    r->m.passes += later;
    r->m.drafted += guesses;
    draw_rows(r, at, guesses);
    if (later && !slides) bb_draft_timed(&s->draft, guesses + 1, c->end - at, seconds);
    return BB_OK;
}

static bb_status check(const bb_generate_options *o, const bb_sampler *sampler, bb_error *err) {
    BB_TRY(bb_sampler_check(sampler, err));
    if (o->speculate != BB_SPECULATE_OFF && o->speculate != BB_SPECULATE_AUTO && o->speculate != BB_SPECULATE_ALWAYS)
        return bb_fail(err, BB_ERR_ARGUMENT, "speculate %d is not known", (int)o->speculate);
    if (o->max_new_bytes < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "max_new_bytes %lld must not be negative", (long long)o->max_new_bytes);
    return BB_OK;
}

bb_status bb_session_generate(bb_session *s, const bb_generate_options *o, bb_generate_metrics *metrics, bb_error *err) {
    BB_REQUIRE("session, options", s, o);
    bb_context *c = &s->context;
    int64_t restarts = c->restarts;
    run r = {.session = s, .options = o, .sampler = bb_sampler_from(o), .m.stop = -1};
    BB_TRY(check(o, &r.sampler, err));
    BB_TRY(bb_stop_open(o->stops, o->stop_count, &r.stop, err));
    r.m.prompt_bytes = s->fed;
    r.m.prompt_seconds = s->fed_seconds;
    s->fed = 0;
    s->fed_seconds = 0;
    /* without a prompt there is nothing to predict from: start after a newline */
    if (c->end == 0) bb_context_append(c, (const uint8_t *)"\n", 1);
    count_all_seen(&r);
    if (o->speculate) bb_draft_reset(&s->draft, c);
    r.shown = c->end;
    r.begin = bb_clock_seconds();
    bb_status status = BB_OK;
    while (!r.over && r.m.new_bytes < o->max_new_bytes && status == BB_OK) status = next_bytes(&r, err);
    if (status == BB_OK && r.m.stop < 0) show(&r, c->end);
    if (r.shown < c->end) bb_context_cut(c, r.shown);
    r.m.decode_seconds = bb_clock_seconds() - r.begin;
    r.m.context_restarts = c->restarts - restarts;
    r.m.mean_logprob = r.m.new_bytes ? r.logprobs / (double)r.m.new_bytes : 0;
    if (metrics) *metrics = r.m;
    bb_stop_close(&r.stop);
    return status;
}

bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *o,
                      bb_generate_metrics *metrics, bb_error *err) {
    BB_REQUIRE("model, options", model, o);
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
