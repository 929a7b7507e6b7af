// SPDX-License-Identifier: MIT
/* Option structs of callers compiled with another version of the library: every function that takes options accepts older and
 * newer ones, and refuses options that it does not know. The structs are allocated with their exact size, so that
 * AddressSanitizer detects accesses beyond it. */
#include "scratch.h"
#include "support.h"
#include "tiny_model.h"

static struct fixture {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_session *session;
    bb_batch *batch;
    char data[512], model_path[512];
} f;

static bool no_output(void *user, const uint8_t *bytes, size_t size) {
    (void)user;
    (void)bytes;
    (void)size;
    return true;
}

/* ---- a call of each function that takes options --------------------------------------------------------------------------- */

typedef bb_status (*taker)(const void *options, bb_error *err);

static bb_status model_import(const void *o, bb_error *err) {
    bb_model *model;
    bb_status status = bb_model_import(f.device, f.model_path, o, &model, err);
    bb_model_free(model);
    return status;
}
static bb_status config_load(const void *o, bb_error *err) {
    bb_config config;
    return bb_config_load(f.model_path, o, &config, NULL, err);
}
static bb_status describe_file(const void *o, bb_error *err) {
    char *json;
    bb_status status = bb_describe_file(f.model_path, o, &json, err);
    bb_string_free(json);
    return status;
}
static bb_status verify_file(const void *o, bb_error *err) {
    bool good;
    char *json = NULL;
    bb_status status = bb_verify_file(f.model_path, o, NULL, NULL, &good, &json, err);
    bb_string_free(json);
    return status;
}
static bb_status export(const void *o, bb_error *err) {
    return bb_export(f.device, f.model_path, scratch_path("exported"), o, err);
}
static bb_status pack(const void *o, bb_error *err) { return bb_pack(o, NULL, err); }
static bb_status optimizer_create(const void *o, bb_error *err) {
    bb_optimizer *optimizer;
    bb_status status = bb_optimizer_create(f.model, o, &optimizer, err);
    bb_optimizer_free(optimizer);
    return status;
}
static bb_status trainer_create(const void *o, bb_error *err) {
    bb_trainer *trainer;
    bb_status status = bb_trainer_create(f.model, f.optimizer, NULL, o, &trainer, err);
    bb_trainer_free(trainer);
    return status;
}
static bb_status predict_rank_train(const void *o, bb_error *err) {
    bb_memory_estimate estimate = {0};
    bb_optimizer_options optimizer;
    bb_optimizer_options_default(&optimizer);
    return bb_memory_predict_rank(&tiny, o, &optimizer, &estimate, err);
}
static bb_status predict_rank_optimizer(const void *o, bb_error *err) {
    bb_memory_estimate estimate = {0};
    bb_train_options train;
    bb_train_options_default(&train);
    return bb_memory_predict_rank(&tiny, &train, o, &estimate, err);
}
static bb_status memory_predict(const void *o, bb_error *err) {
    bb_memory_estimate estimate;
    return bb_memory_predict(f.device, &tiny, o, &estimate, err);
}
static bb_status plan_run(const void *o, bb_error *err) {
    bb_plan plan;
    return bb_plan_run(f.device, o, &plan, err);
}
static bb_status plan_run_optimizer(const void *o, bb_error *err) {
    bb_plan plan;
    bb_plan_request request;
    bb_plan_request_default(&request); /* of no minutes, which is refused after the options were read */
    request.optimizer = o;
    return bb_plan_run(f.device, &request, &plan, err);
}
static bb_status evaluate(const void *o, bb_error *err) {
    bb_eval_result result;
    return bb_evaluate(f.model, f.data, o, &result, err);
}
static bb_status session_open(const void *o, bb_error *err) {
    bb_session *session;
    bb_status status = bb_session_open(f.model, o, &session, err);
    bb_session_close(session);
    return status;
}
static bb_status session_generate(const void *o, bb_error *err) { return bb_session_generate(f.session, o, NULL, err); }
static bb_status generate(const void *o, bb_error *err) { return bb_generate(f.model, NULL, 0, o, NULL, err); }
static bb_status batch_open(const void *o, bb_error *err) {
    bb_batch *batch;
    bb_status status = bb_batch_open(f.model, o, &batch, err);
    bb_batch_close(batch);
    return status;
}
static bb_status batch_add(const void *o, bb_error *err) {
    int64_t id;
    return bb_batch_add(f.batch, o, &id, err); /* without options to generate with, which is refused */
}
static bb_status batch_add_generate(const void *o, bb_error *err) {
    int64_t id;
    bb_batch_request request;
    bb_batch_request_default(&request);
    request.options = o;
    return bb_batch_add(f.batch, &request, &id, err);
}
static bb_status score(const void *o, bb_error *err) {
    bb_score_text text = {.text = {(const uint8_t *)"abc", 3}};
    return bb_score(f.model, &text, 1, o, err);
}
static bb_status compressor_open(const void *o, bb_error *err) {
    bb_compressor *compressor;
    bb_status status = bb_compressor_open(f.model, o, &compressor, err); /* without on_output: refused */
    bb_compressor_close(compressor);
    return status;
}
static bb_status decompressor_open(const void *o, bb_error *err) {
    bb_decompressor *decompressor;
    bb_status status = bb_decompressor_open(f.model, o, &decompressor, err);
    bb_decompressor_close(decompressor);
    return status;
}
static bb_status compress_level(const void *o, bb_error *err) {
    return bb_compress_options_level((bb_compress_options *)(uintptr_t)o, 5, err);
}
static bb_status bitlinear_create(const void *o, bb_error *err) {
    bb_bitlinear *layer;
    bb_status status = bb_bitlinear_create(f.device, o, &layer, err); /* of no inputs: refused */
    bb_bitlinear_free(layer);
    return status;
}
static bb_status bench(const void *o, bb_error *err) {
    char *json;
    return bb_bench(f.device, o, &json, err);
}
static bb_status bench_decode(const void *o, bb_error *err) {
    char *json;
    return bb_bench_decode(f.device, o, &json, err);
}

#define TYPE(type)                                                                                                             \
    static void type##_start(void *o, size_t size) { type##_init(o, size); }                                                   \
    struct type
TYPE(bb_import_options);
TYPE(bb_export_options);
TYPE(bb_pack_options);
TYPE(bb_optimizer_options);
TYPE(bb_train_options);
TYPE(bb_memory_request);
TYPE(bb_plan_request);
TYPE(bb_eval_options);
TYPE(bb_session_options);
TYPE(bb_generate_options);
TYPE(bb_batch_options);
TYPE(bb_batch_request);
TYPE(bb_score_options);
TYPE(bb_compress_options);
TYPE(bb_bitlinear_options);
TYPE(bb_bench_options);
TYPE(bb_decode_bench_options);

#define TAKES(take, type)                                                                                                      \
    { #take, #type, type##_start, sizeof(type), take, false }
#define TAKES_LONG(take, type)                                                                                                 \
    { #take, #type, type##_start, sizeof(type), take, true }
static const struct row {
    const char *function, *type;
    void (*init)(void *options, size_t struct_size);
    size_t size;
    taker take;
    bool slow; /* with the defaults */
} rows[] = {TAKES(model_import, bb_import_options),
            TAKES(config_load, bb_import_options),
            TAKES(describe_file, bb_import_options),
            TAKES(verify_file, bb_import_options),
            TAKES(export, bb_export_options),
            TAKES(pack, bb_pack_options),
            TAKES(optimizer_create, bb_optimizer_options),
            TAKES_LONG(trainer_create, bb_train_options),
            TAKES(predict_rank_train, bb_train_options),
            TAKES(predict_rank_optimizer, bb_optimizer_options),
            TAKES(memory_predict, bb_memory_request),
            TAKES(plan_run, bb_plan_request),
            TAKES(plan_run_optimizer, bb_optimizer_options),
            TAKES(evaluate, bb_eval_options),
            TAKES(session_open, bb_session_options),
            TAKES(session_generate, bb_generate_options),
            TAKES(generate, bb_generate_options),
            TAKES(batch_open, bb_batch_options),
            TAKES(batch_add, bb_batch_request),
            TAKES(batch_add_generate, bb_generate_options),
            TAKES(score, bb_score_options),
            TAKES(compressor_open, bb_compress_options),
            TAKES(decompressor_open, bb_compress_options),
            TAKES(compress_level, bb_compress_options),
            TAKES(bitlinear_create, bb_bitlinear_options),
            TAKES_LONG(bench, bb_bench_options),
            TAKES_LONG(bench_decode, bb_decode_bench_options)};
enum { ROWS = sizeof rows / sizeof *rows };

static int set_up(void **state) {
    bb_optimizer_options optimizer;
    bb_session_options session;
    bb_batch_options batch;
    char text[300];
    if (scratch_create(state) != 0) return -1;
    memset(text, 'a', sizeof text);
    (void)snprintf(f.data, sizeof f.data, "%s", scratch_path("data.txt"));
    (void)snprintf(f.model_path, sizeof f.model_path, "%s", scratch_path("model.safetensors"));
    assert_true(scratch_write(f.data, text, sizeof text));
    bb_optimizer_options_default(&optimizer);
    bb_session_options_default(&session);
    bb_batch_options_default(&batch);
    assert_ok(bb_device_open("cpu", 1, &f.device, &test_error));
    assert_ok(bb_model_create(f.device, &tiny, 1, &f.model, &test_error));
    assert_ok(bb_model_save(f.model, f.model_path, &test_error));
    assert_ok(bb_optimizer_create(f.model, &optimizer, &f.optimizer, &test_error));
    assert_ok(bb_session_open(f.model, &session, &f.session, &test_error));
    assert_ok(bb_batch_open(f.model, &batch, &f.batch, &test_error));
    return 0;
}

static int tear_down(void **state) {
    bb_batch_close(f.batch);
    bb_session_close(f.session);
    bb_optimizer_free(f.optimizer);
    bb_model_free(f.model);
    bb_device_close(f.device);
    return scratch_remove(state);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

static size_t size_of(const void *options) {
    size_t size;
    memcpy(&size, options, sizeof size);
    return size;
}

/* In memory of just that size. */
static void *make(const struct row *r, size_t size) {
    void *options = malloc(size);
    assert_non_null(options);
    memset(options, 0xee, size);
    r->init(options, size);
    assert_int_equal(size_of(options), size);
    return options;
}

static void defaults_fit_the_size_that_the_caller_has(void **state) {
    (void)state;
    for (const struct row *r = rows; r < rows + ROWS; r++) {
        unsigned char *whole = make(r, r->size), *older = make(r, r->size - 8), *newer = make(r, r->size + 100);
        assert_memory_equal(whole + sizeof(size_t), newer + sizeof(size_t), r->size - sizeof(size_t));
        assert_memory_equal(whole + sizeof(size_t), older + sizeof(size_t), r->size - 8 - sizeof(size_t));
        for (size_t i = r->size; i < r->size + 100; i++) assert_int_equal(newer[i], 0);
        free(whole);
        free(older);
        free(newer);
        r->init(NULL, r->size);
        size_t small = 1;
        r->init(&small, 4); /* no size of any version: nothing is written */
        assert_int_equal(small, 1);
    }
}

static void older_and_newer_callers_get_what_they_ask_for(void **state) {
    (void)state;
    for (const struct row *r = rows; r < rows + ROWS; r++) {
        if (r->slow) continue;
        void *same = make(r, r->size), *others[] = {make(r, sizeof(size_t)), make(r, r->size - 8), make(r, r->size + 24)};
        bb_error expected = {0}, found;
        bb_status status = r->take(same, &expected);
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            found = (bb_error){0};
            if (r->take(others[i], &found) != status || strcmp(found.message, expected.message) != 0)
                fail_msg("%s with %zu bytes: '%s', not '%s'", r->function, size_of(others[i]), found.message, expected.message);
            free(others[i]);
        }
        free(same);
    }
}

static void what_is_not_known_is_refused(void **state) {
    (void)state;
    char expected[128];
    for (const struct row *r = rows; r < rows + ROWS; r++) {
        unsigned char *newer = make(r, r->size + 24);
        newer[r->size + 23] = 1;
        test_error.message[0] = 0;
        if (r->take(newer, &test_error) != BB_ERR_ARGUMENT) fail_msg("%s takes an unknown option", r->function);
        (void)snprintf(expected, sizeof expected, "the caller's %s has %zu bytes", r->type, r->size + 24);
        assert_message(test_error, expected);
        const size_t wrong[] = {0, 4, 70000, SIZE_MAX};
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            memcpy(newer, &wrong[i], sizeof wrong[i]);
            test_error.message[0] = 0;
            if (r->take(newer, &test_error) != BB_ERR_ARGUMENT) fail_msg("%s takes a size of %zu", r->function, wrong[i]);
            (void)snprintf(expected, sizeof expected, "%s: struct_size is %zu; call %s_default before", r->type, wrong[i],
                           r->type);
            assert_message(test_error, expected);
        }
        free(newer);
    }
}

static void an_older_caller_is_heard(void **state) {
    (void)state;
    size_t size = offsetof(bb_generate_options, stops); /* as if all from there were new */
    bb_generate_options o;
    bb_generate_metrics metrics;
    bb_generate_options_default(&o);
    o.max_new_bytes = 5;
    void *older = malloc(size);
    assert_non_null(older);
    o.struct_size = size;
    memcpy(older, &o, size);
    assert_ok(bb_generate(f.model, NULL, 0, older, &metrics, &test_error));
    assert_int_equal(metrics.new_bytes, 5);
    free(older);
}

static void only_the_callers_bytes_are_written(void **state) {
    (void)state;
    const struct row row = {.init = bb_compress_options_start};
    size_t size = offsetof(bb_compress_options, context_length);
    bb_compress_options o = {0};
    unsigned char *older = make(&row, size);
    assert_ok(bb_compress_options_level((bb_compress_options *)(void *)older, 9, &test_error));
    memcpy(&o, older, size);
    assert_true(o.struct_size == size && o.lanes == 1 && o.block_bytes == 1 << 24);
    free(older);

    const struct row train_row = {.init = bb_train_options_start}, optimizer_row = {.init = bb_optimizer_options_start};
    bb_train_options train = {0};
    bb_optimizer_options optimizer = {0};
    size_t train_size = offsetof(bb_train_options, grad_clip), optimizer_size = offsetof(bb_optimizer_options, lr_adam);
    unsigned char *older_train = make(&train_row, train_size), *older_optimizer = make(&optimizer_row, optimizer_size);
    bb_recipe_options(BB_RECIPE_BITBYTE, (bb_train_options *)(void *)older_train,
                      (bb_optimizer_options *)(void *)older_optimizer);
    memcpy(&train, older_train, train_size);
    memcpy(&optimizer, older_optimizer, optimizer_size);
    assert_true(train.struct_size == train_size && train.steps == 200000 && train.lr_min_factor <= 0);
    assert_true(optimizer.struct_size == optimizer_size && optimizer.kind == BB_OPTIM_MUON);
    assert_true(bb_train_lr_plan((const bb_train_options *)(const void *)older_train, 1).total_steps == 200000);
    free(older_train);
    free(older_optimizer);
    /* a struct that was never filled is left alone */
    bb_train_options empty = {0};
    bb_recipe_options(BB_RECIPE_BITBYTE, &empty, NULL);
    assert_true(empty.struct_size == 0 && empty.warmup_frac <= 0);
}

static void the_right_sizes_work(void **state) { /* so that what is compared above is not refusals alone */
    (void)state;
    bb_compress_options compress;
    bb_compress_options_default(&compress);
    compress.on_output = no_output;
    assert_ok(compressor_open(&compress, &test_error));
    assert_ok(decompressor_open(&compress, &test_error));
    bb_bitlinear_options layer;
    bb_bitlinear_options_default(&layer);
    layer.in_features = layer.out_features = 8;
    assert_ok(bitlinear_create(&layer, &test_error));
    for (const struct row *r = rows; r < rows + ROWS; r++) {
        const taker refused[] = {
            pack,           plan_run, plan_run_optimizer, batch_add, compressor_open, decompressor_open, bitlinear_create,
            trainer_create, bench,    bench_decode};
        bool refuses = false;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) refuses |= r->take == refused[i];
        if (refuses) continue;
        void *options = make(r, r->size);
        assert_ok(r->take(options, &test_error));
        free(options);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fit_the_size_that_the_caller_has),
        cmocka_unit_test(older_and_newer_callers_get_what_they_ask_for),
        cmocka_unit_test(what_is_not_known_is_refused),
        cmocka_unit_test(an_older_caller_is_heard),
        cmocka_unit_test(only_the_callers_bytes_are_written),
        cmocka_unit_test(the_right_sizes_work),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
