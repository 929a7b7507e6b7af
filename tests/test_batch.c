// SPDX-License-Identifier: MIT
/* Many texts at once: each gets the same result as alone, whatever joins, leaves or is cancelled meanwhile. */
#include "support.h"

#include "core/rng.h"
#include "levels.h"
#include "model/forward.h"
#include "random_bytes.h"
#include "tiny_model.h"

enum { TEXTS = 16, MAX_BYTES = 160, MAX_PROMPT = 700, V = 256 };

typedef struct fixture {
    bb_device *device;
    bb_model *model, *draft;
    uint64_t seed, drawn;
} fixture;

static fixture open_model(const char *device_name, const bb_config *config) {
    fixture f = {.seed = 1};
    bb_config small = *config;
    small.n_layer = 1;
    assert_ok(bb_device_open(device_name, 2, &f.device, &test_error));
    assert_ok(bb_model_create(f.device, config, 3, &f.model, &test_error));
    assert_ok(bb_model_create(f.device, &small, 4, &f.draft, &test_error));
    return f;
}

static void close_model(fixture *f) {
    bb_model_free(f->draft);
    bb_model_free(f->model);
    bb_device_close(f->device);
}

static int64_t below(fixture *f, int64_t n) { return (int64_t)bb_rng_below(f->seed, BB_STREAM_TEST, f->drawn++, (uint64_t)n); }

/* What a request gave. */
typedef struct result {
    uint8_t bytes[MAX_BYTES];
    double logprobs[MAX_BYTES];
    bb_candidate top[MAX_BYTES];
    int count, ends, cancel_after; /* cancel_after: bytes; 0: never */
    bb_batch_end end;
} result;

static bool take_byte(void *user, const bb_batch_byte *b) {
    result *r = user;
    assert_false(b->prompt);
    assert_int_equal(r->ends, 0);
    assert_true(r->count < MAX_BYTES);
    r->bytes[r->count] = b->byte;
    r->logprobs[r->count] = b->logprob;
    if (b->top_count) r->top[r->count] = b->top[b->top_count - 1];
    r->count++;
    return r->count != r->cancel_after;
}

static void take_end(void *user, const bb_batch_end *end) {
    result *r = user;
    r->ends++;
    r->end = *end;
    if (end->error) print_error("%s\n", end->error->message);
}

/* A request with everything that may differ. */
typedef struct drawn_request {
    bb_batch_request request;
    bb_generate_options options;
    uint8_t prompt[MAX_PROMPT];
    uint8_t stop_bytes[2];
    bb_bytes stops[2];
} drawn_request;

/* share: prompts begin alike. */
static void draw_request(fixture *f, drawn_request *d, int i, bool share) {
    static const int64_t windows[] = {0, 0, 0, 40, 300, 1000};
    bb_generate_options *o = &d->options;
    bb_generate_options_default(o);
    o->max_new_bytes = below(f, 8) == 0 ? 0 : 1 + below(f, MAX_BYTES - 1);
    o->temperature = (double)below(f, 4) * 0.6;
    o->top_k = below(f, 3) ? 0 : 4;
    o->repetition_penalty = below(f, 3) ? 1 : 1.2;
    o->seed = (uint64_t)i;
    o->context_length = (int)windows[below(f, 6)];
    o->kv_cache = (bb_kv_type)below(f, 3);
    o->speculate = (bb_speculate)below(f, 3);
    d->stop_bytes[0] = (uint8_t)below(f, V);
    d->stop_bytes[1] = (uint8_t)below(f, V);
    d->stops[0] = (bb_bytes){d->stop_bytes, 2};
    d->stops[1] = (bb_bytes){d->stop_bytes, 1};
    o->stops = d->stops;
    o->stop_count = below(f, 3) ? 1 : 2;
    size_t size = (size_t)below(f, below(f, 3) ? 40 : MAX_PROMPT);
    int64_t kind = below(f, 3);
    for (size_t p = 0; p < size; p++)
        d->prompt[p] = (uint8_t)(share && p < (size_t)(300 + 60 * kind) ? 'a' + p * p % 23 : (uint64_t)below(f, V));
    d->request = (bb_batch_request){.struct_size = sizeof(bb_batch_request),
                                    .prompt = {d->prompt, size},
                                    .options = o,
                                    .on_byte = take_byte,
                                    .on_end = take_end,
                                    .top = below(f, 2) ? 2 : 0};
}

static void run_alone(const fixture *f, const drawn_request *d, result *out) {
    bb_batch *b;
    bb_batch_options o;
    bb_batch_request r = d->request;
    bb_generate_options plain = d->options;
    bool more = true;
    int64_t id;
    bb_batch_options_default(&o);
    o.max_sequences = 1;
    plain.speculate = BB_SPECULATE_OFF;
    r.options = &plain;
    r.user = out;
    assert_ok(bb_batch_open(f->model, &o, &b, &test_error));
    assert_ok(bb_batch_add(b, &r, &id, &test_error));
    while (more) assert_ok(bb_batch_step(b, &more, &test_error));
    bb_batch_close(b);
    assert_int_equal(out->ends, 1);
}

/* A device whose passes fail: all of a few in a row. */
static struct {
    bb_status (*sync)(bb_device *dev, bb_error *err);
    int good, bad; /* passes to come: good ones, then bad ones, then good ones */
} failing;

static bb_status sync_or_fail(bb_device *dev, bb_error *err) {
    BB_TRY(failing.sync(dev, err));
    if (failing.good-- > 0 || failing.bad-- <= 0) return BB_OK;
    return bb_fail(err, BB_ERR_INTERNAL, "the device has failed");
}

static void a_failed_pass_ends_the_texts_that_fail_alone(void **state) {
    (void)state;
    enum { COUNT = 4, PASSES = 8 };
    fixture f = open_model("cpu", &tiny);
    const bb_ops *ops = f.device->ops;
    bb_ops wrong = *ops;
    static drawn_request d[COUNT];
    static result alone[COUNT], got[COUNT];
    for (int i = 0; i < COUNT; i++) {
        draw_request(&f, &d[i], i, false);
        d[i].options.max_new_bytes = 40;
        d[i].options.context_length = 100;
        d[i].request.prompt.size = 10 + (size_t)i;
        d[i].options.stop_count = 0;
        d[i].options.speculate = BB_SPECULATE_OFF;
        run_alone(&f, &d[i], &alone[i]);
    }
    failing.sync = ops->sync;
    wrong.sync = sync_or_fail;
    for (int bad = 1; bad <= COUNT + 1; bad++) { /* 1: the shared pass alone, after which all go on */
        bb_batch *b;
        bb_batch_options o;
        bool more = true;
        int64_t id;
        int failed = 0;
        memset(got, 0, sizeof got);
        bb_batch_options_default(&o);
        assert_ok(bb_batch_open(f.model, &o, &b, &test_error));
        for (int i = 0; i < COUNT; i++) {
            d[i].request.user = &got[i];
            assert_ok(bb_batch_add(b, &d[i].request, &id, &test_error));
        }
        failing.good = PASSES;
        failing.bad = bad;
        f.device->ops = &wrong;
        while (more) assert_ok(bb_batch_step(b, &more, &test_error));
        f.device->ops = ops;
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(got[i].ends, 1);
            bool fails = got[i].end.finish == BB_FINISH_ERROR;
            failed += fails;
            assert_true(fails ? got[i].count < alone[i].count : got[i].count == alone[i].count);
            assert_memory_equal(got[i].bytes, alone[i].bytes, (size_t)got[i].count);
            assert_memory_equal(got[i].logprobs, alone[i].logprobs, (size_t)got[i].count * sizeof(double));
        }
        assert_int_equal(failed, bad - 1);
        assert_int_equal(bb_batch_get_state(b).active, 0);
        bb_batch_close(b);
    }
    close_model(&f);
}

typedef struct plain_bytes {
    uint8_t bytes[MAX_BYTES];
    int count;
} plain_bytes;

static bool keep_plain(void *user, uint8_t byte) {
    plain_bytes *p = user;
    p->bytes[p->count++] = byte;
    return true;
}

/* bb_generate gives the same bytes. */
static void compare_with_generate(const fixture *f, const drawn_request *d, const result *r) {
    plain_bytes p = {.count = 0};
    bb_generate_metrics m;
    bb_generate_options o = d->options;
    o.on_byte = keep_plain;
    o.user = &p;
    assert_ok(bb_generate(f->model, d->prompt, d->request.prompt.size, &o, &m, &test_error));
    assert_int_equal(p.count, r->count);
    assert_memory_equal(p.bytes, r->bytes, (size_t)p.count);
    assert_int_equal(m.stop, r->end.metrics.stop);
    assert_int_equal(m.new_bytes, r->end.metrics.new_bytes);
    assert_int_equal(m.context_restarts, r->end.metrics.context_restarts);
    assert_true(m.mean_logprob >= r->end.metrics.mean_logprob && m.mean_logprob <= r->end.metrics.mean_logprob);
}

/* Random schedules: requests join at random steps, some are cancelled, some end themselves. */
static void check_schedule(fixture *f, bool share, int texts) {
    static drawn_request requests[TEXTS];
    static result alone[TEXTS], results[TEXTS];
    int64_t ids[TEXTS], cancel_at[TEXTS], shared = 0;
    bb_batch_options o;
    bb_batch *b;
    bb_batch_options_default(&o);
    o.max_sequences = 1 + (int)below(f, 12);
    o.keep = (int)below(f, 5);
    o.draft = below(f, 2) ? f->draft : NULL;
    memset(alone, 0, sizeof alone);
    memset(results, 0, sizeof results);
    for (int i = 0; i < texts; i++) {
        draw_request(f, &requests[i], i, share);
        run_alone(f, &requests[i], &alone[i]);
        compare_with_generate(f, &requests[i], &alone[i]);
        results[i].cancel_after = below(f, 6) ? 0 : 1 + (int)below(f, 20);
        cancel_at[i] = below(f, 6) ? -1 : below(f, 200);
    }
    if (below(f, 2)) o.cache_bytes = 3 * bb_kv_cache_bytes(f->device, bb_model_config(f->model), 2048, BB_KV_F32);
    assert_ok(bb_batch_open(f->model, &o, &b, &test_error));
    bool more = true;
    for (int64_t step = 0, added = 0; more || added < texts; step++) {
        for (int64_t n = below(f, 3); n > 0 && added < texts; n--, added++) {
            requests[added].request.user = &results[added];
            assert_ok(bb_batch_add(b, &requests[added].request, &ids[added], &test_error));
        }
        for (int64_t i = 0; i < added; i++)
            if (cancel_at[i] == step) bb_batch_cancel(b, ids[i]);
        assert_ok(bb_batch_step(b, &more, &test_error));
        bb_batch_state state = bb_batch_get_state(b);
        assert_true(state.active <= o.max_sequences && state.kept <= o.keep);
        assert_true(!o.cache_bytes || state.cache_bytes <= o.cache_bytes);
    }
    for (int i = 0; i < texts; i++) {
        const result *r = &results[i], *a = &alone[i];
        assert_int_equal(r->ends, 1);
        bool whole = r->end.finish != BB_FINISH_CALLER;
        if (whole) {
            assert_int_equal(r->count, a->count);
            assert_int_equal(r->end.finish, a->end.finish);
        }
        assert_true(r->count <= a->count);
        assert_memory_equal(r->bytes, a->bytes, (size_t)r->count);
        assert_memory_equal(r->logprobs, a->logprobs, (size_t)r->count * sizeof *r->logprobs);
        for (int j = 0; j < r->count && requests[i].request.top; j++) {
            assert_int_equal(r->top[j].byte, a->top[j].byte);
            assert_true(r->top[j].logprob <= r->logprobs[j] || r->top[j].byte != r->bytes[j]);
        }
        shared += r->end.shared_bytes;
    }
    if (!share) assert_true(shared < 2000);
    bb_batch_state state = bb_batch_get_state(b);
    assert_int_equal(state.active + state.waiting, 0);
    bb_batch_close(b);
}

static void texts_do_not_depend_on_each_other_on_ref(void **state) {
    (void)state;
    fixture f = open_model("ref", &tiny);
    for (f.seed = 1; f.seed <= 2; f.seed++) check_schedule(&f, f.seed % 2, 6);
    close_model(&f);
}

static void texts_do_not_depend_on_each_other_on_cpu(void **state) {
    (void)state;
    fixture f = open_model("cpu", &tiny);
    for (f.seed = 10; f.seed <= 12; f.seed++) check_schedule(&f, f.seed % 2, TEXTS);
    close_model(&f);
}

/* ---- prompts: logprobs, embeddings ----------------------------------------------------------------------------------------- */

enum { PROMPT = 600 };

typedef struct prompt_result {
    bb_batch_byte bytes[PROMPT + 4];
    int count;
    float embedding[64];
    bb_batch_end end;
} prompt_result;

static bool take_prompt(void *user, const bb_batch_byte *b) {
    prompt_result *r = user;
    r->bytes[r->count++] = *b;
    return true;
}

static void take_embedding(void *user, const bb_batch_end *end) {
    prompt_result *r = user;
    r->end = *end;
    if (end->embedding) memcpy(r->embedding, end->embedding, (size_t)tiny.d_model * sizeof *r->embedding);
}

/* Logprobs of a prompt are those of the full pass, and so is what follows; an embedding is the mean of the hidden states. Beside
 * another text that generates. */
static void check_prompt(const char *device_name, double bound) {
    fixture f = open_model(device_name, &tiny);
    static uint8_t x[PROMPT];
    static float logits[PROMPT * V], hidden[PROMPT * 64];
    static prompt_result r, embedded, both;
    static result other;
    bb_batch *b;
    bb_batch_options o;
    bb_generate_options generate, none;
    int64_t id;
    bool more = true;
    memset(&other, 0, sizeof other);
    r.count = embedded.count = both.count = 0;
    fill_bytes(x, PROMPT);
    bb_batch_options_default(&o);
    bb_generate_options_default(&generate);
    generate.max_new_bytes = 4;
    generate.kv_cache = BB_KV_F32;
    none = generate;
    none.max_new_bytes = 0;
    assert_ok(bb_batch_open(f.model, &o, &b, &test_error));
    const bb_batch_request beside = {.struct_size = sizeof(bb_batch_request),
                                     .options = &generate,
                                     .on_byte = take_byte,
                                     .on_end = take_end,
                                     .user = &other};
    bb_batch_request request = {.struct_size = sizeof(bb_batch_request),
                                .prompt = {x, PROMPT},
                                .options = &generate,
                                .prompt_logprobs = true,
                                .on_byte = take_prompt,
                                .on_end = take_embedding,
                                .user = &r};
    assert_ok(bb_batch_add(b, &beside, &id, &test_error));
    assert_ok(bb_batch_add(b, &request, &id, &test_error));
    request.user = &both;
    request.embed = true;
    assert_ok(bb_batch_add(b, &request, &id, &test_error));
    request = (bb_batch_request){.struct_size = sizeof(bb_batch_request),
                                 .prompt = {x, PROMPT},
                                 .options = &none,
                                 .embed = true,
                                 .on_end = take_embedding,
                                 .user = &embedded};
    assert_ok(bb_batch_add(b, &request, &id, &test_error));
    while (more) assert_ok(bb_batch_step(b, &more, &test_error));
    assert_int_equal(other.count, 4);

    assert_int_equal(r.count, PROMPT + 4);
    assert_true(isnan(r.bytes[0].logprob) && r.bytes[0].prompt);
    assert_ok(bb_model_forward(f.model, x, 1, PROMPT, logits, &test_error));
    for (int i = 0; i < PROMPT; i++) {
        assert_int_equal(r.bytes[i].byte, x[i]);
        assert_true(r.bytes[i].prompt);
        if (i == 0) continue;
        const float *row = logits + (size_t)(i - 1) * V;
        double max = -INFINITY, sum = 0;
        for (int v = 0; v < V; v++) max = fmax(max, (double)row[v]);
        for (int v = 0; v < V; v++) sum += exp((double)row[v] - max);
        double expected = (double)row[x[i]] - max - log(sum);
        if (!(fabs(expected - r.bytes[i].logprob) <= bound)) fail_msg("byte %d: %g, not %g", i, r.bytes[i].logprob, expected);
    }
    assert_false(r.bytes[PROMPT].prompt);
    assert_null(r.end.embedding);

    bb_kv_cache cache;
    double worst = 0;
    assert_ok(bb_kv_cache_open(f.model, PROMPT, BB_KV_F32, &cache, &test_error));
    for (int at = 0; at < PROMPT; at += 100) {
        bb_cached_rows rows = {
            .cache = &cache, .bytes = x + at, .rows = 100, .wanted = 100, .hidden = hidden + at * tiny.d_model};
        assert_ok(bb_model_forward_parts(f.model, &rows, 1, &test_error));
    }
    for (int c = 0; c < tiny.d_model; c++) {
        double sum = 0;
        for (int i = 0; i < PROMPT; i++) sum += (double)hidden[i * tiny.d_model + c];
        worst = fmax(worst, fabs(sum / PROMPT - (double)embedded.embedding[c]));
    }
    assert_true(worst <= bound);
    assert_non_null(both.end.embedding);
    assert_memory_equal(both.embedding, embedded.embedding, (size_t)tiny.d_model * sizeof(float));
    assert_int_equal(both.count, r.count);
    for (int i = 1; i < r.count; i++)
        assert_true(both.bytes[i].byte == r.bytes[i].byte && both.bytes[i].logprob <= r.bytes[i].logprob &&
                    both.bytes[i].logprob >= r.bytes[i].logprob);
    bb_kv_cache_close(&cache);
    bb_batch_close(b);
    close_model(&f);
}

static void prompts_are_scored_and_embedded(void **state) {
    (void)state;
    check_prompt("ref", 1e-5);
    check_prompt("cpu", 0.05);
}

/* ---- sharing ---------------------------------------------------------------------------------------------------------------- */

static void a_prompt_is_read_once(void **state) {
    (void)state;
    fixture f = open_model("cpu", &tiny);
    static uint8_t x[PROMPT];
    static result results[8];
    bb_batch *b;
    bb_batch_options o;
    bb_generate_options generate;
    bool more = true;
    int64_t id, steps = 0;
    memset(results, 0, sizeof results);
    fill_bytes(x, PROMPT);
    bb_batch_options_default(&o);
    o.max_sequences = 4;
    bb_generate_options_default(&generate);
    generate.max_new_bytes = 5;
    assert_ok(bb_batch_open(f.model, &o, &b, &test_error));
    bb_batch_request r = {.struct_size = sizeof(bb_batch_request),
                          .prompt = {x, PROMPT},
                          .options = &generate,
                          .on_byte = take_byte,
                          .on_end = take_end};
    for (int i = 0; i < 8; i++) {
        r.user = &results[i];
        assert_ok(bb_batch_add(b, &r, &id, &test_error));
    }
    for (; more; steps++) assert_ok(bb_batch_step(b, &more, &test_error));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(results[i].end.shared_bytes, i ? PROMPT - 1 : 0);
        assert_memory_equal(results[i].bytes, results[0].bytes, 5);
    }
    assert_in_range(steps, 12, 16);
    /* a conversation goes on from its own text */
    static uint8_t next[PROMPT + 20];
    fill_bytes(next, PROMPT);
    memcpy(next + PROMPT, results[7].bytes, 5);
    memset(next + PROMPT + 5, 'q', 10);
    results[0] = (result){.count = 0};
    r.prompt = (bb_bytes){next, PROMPT + 15};
    r.user = &results[0];
    assert_ok(bb_batch_add(b, &r, &id, &test_error));
    for (more = true; more;) assert_ok(bb_batch_step(b, &more, &test_error));
    assert_int_equal(results[0].end.shared_bytes, PROMPT + 4);
    bb_batch_close(b);
    close_model(&f);
}

/* ---- callbacks, limits, arguments --------------------------------------------------------------------------------------------- */

typedef struct chain {
    bb_batch *batch;
    bb_batch_request request;
    int left;
    int64_t id;
} chain;

static void add_next(void *user, const bb_batch_end *end) {
    chain *c = user;
    assert_null(end->error);
    bb_batch_cancel(c->batch, c->id);
    if (c->left-- > 0) assert_ok(bb_batch_add(c->batch, &c->request, &c->id, &test_error));
}

static void only_a(void *user, float *logits) {
    (void)user;
    logits['a'] = 1000;
}

static bool count_a(void *user, const bb_batch_byte *b) {
    assert_int_equal(b->byte, 'a');
    assert_true(b->logprob < -1); /* of the model, not of the changed logits */
    ++*(int *)user;
    return true;
}

static void callbacks_may_add_and_change(void **state) {
    (void)state;
    fixture f = open_model("cpu", &tiny);
    bb_batch *b;
    bb_batch_options o;
    bb_generate_options generate;
    bool more = true;
    int64_t id;
    int count = 0;
    bb_batch_options_default(&o);
    bb_generate_options_default(&generate);
    generate.max_new_bytes = 20;
    assert_ok(bb_batch_open(f.model, &o, &b, &test_error));
    chain c = {
        .batch = b, .left = 5, .request = {.struct_size = sizeof(bb_batch_request), .options = &generate, .on_end = add_next}};
    c.request.user = &c;
    assert_ok(bb_batch_add(b, &c.request, &c.id, &test_error));
    assert_ok(bb_batch_add(b,
                           &(bb_batch_request){.struct_size = sizeof(bb_batch_request),
                                               .options = &generate,
                                               .on_logits = only_a,
                                               .on_byte = count_a,
                                               .user = &count},
                           &id, &test_error));
    while (more) assert_ok(bb_batch_step(b, &more, &test_error));
    assert_int_equal(c.left, -1);
    assert_int_equal(count, 20);
    assert_ok(bb_batch_add(b, &c.request, &c.id, &test_error)); /* left behind */
    bb_batch_close(b);
    close_model(&f);
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    fixture f = open_model("ref", &tiny);
    bb_batch *b;
    bb_batch_options o;
    bb_generate_options g;
    int64_t id;
    bb_batch_options_default(&o);
    o.max_sequences = 257;
    assert_fails(bb_batch_open(f.model, &o, &b, &test_error), BB_ERR_ARGUMENT, "max_sequences 257");
    assert_null(b);
    bb_batch_options_default(&o);
    o.cache_bytes = 20000;
    assert_ok(bb_batch_open(f.model, &o, &b, &test_error));
    bb_generate_options_default(&g);
    bb_batch_request r = {.struct_size = sizeof(bb_batch_request), .options = &g};
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_MEMORY, "the limit is 0.0 MB");
    g.temperature = -1;
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_ARGUMENT, "temperature");
    bb_generate_options_default(&g);
    g.max_new_bytes = 1;
    g.stop_count = 1;
    g.stops = &(bb_bytes){(const uint8_t *)"", 0};
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_ARGUMENT, "stop text 1");
    g.stop_count = 0;
    r.prompt.size = 5;
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_ARGUMENT, "the prompt is NULL");
    r.prompt = (bb_bytes){(const uint8_t *)"12345", 5};
    g.context_length = 4;
    r.embed = true;
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_ARGUMENT, "within the context of 4 bytes; it has 5");
    r.embed = false;
    r.top = 3;
    assert_fails(bb_batch_add(b, &r, &id, &test_error), BB_ERR_ARGUMENT, "top 3");
    bb_batch_close(b);
    close_model(&f);
}

int main(void) {
    const struct CMUnitTest level_tests[] = {cmocka_unit_test(texts_do_not_depend_on_each_other_on_cpu)};
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_do_not_depend_on_each_other_on_ref),
                                       cmocka_unit_test(texts_do_not_depend_on_each_other_on_cpu),
                                       cmocka_unit_test(prompts_are_scored_and_embedded),
                                       cmocka_unit_test(a_prompt_is_read_once),
                                       cmocka_unit_test(callbacks_may_add_and_change),
                                       cmocka_unit_test(a_failed_pass_ends_the_texts_that_fail_alone),
                                       cmocka_unit_test(what_cannot_be_is_refused)};
    if (begin_level(NULL)) return cmocka_run_group_tests(level_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
