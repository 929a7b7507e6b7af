// SPDX-License-Identifier: MIT
/* Training, checkpoints, resuming, evaluation, loading and generation on a device whose memory the host cannot touch
 * (guarded.h). It computes like ref, so results have the same bits. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "dist/dist.h"
#include "generation_output.h"
#include "guarded.h"
#include "ops_cases.h"
#include "scratch.h"
#include "support.h"

enum { STEPS = 6, SEQ = 32 };

static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 2,
                               .d_model = 48,
                               .n_head = 4,
                               .n_kv_head = 2,
                               .d_ff = 70,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

static const char *const devices[] = {"ref", "guarded"};

static bb_device *open_device(const char *name) {
    bb_device *device;
    assert_ok(bb_device_open(name, 1, &device, &test_error));
    return device;
}

static int set_up(void **state) {
    if (scratch_create(state) != 0) return -1;
    guarded_register();
    char text[6000];
    for (int i = 0; i < (int)sizeof text; i++) text[i] = (char)(' ' + bb_rng_below(1, BB_STREAM_TEST, (uint64_t)i, 90));
    return scratch_write(scratch_path("text.txt"), text, sizeof text) ? 0 : -1;
}

/* ---- the device itself: a test device that lets things through is worse than none --------------------------------------- */

/* The signal that ends a process which calls `misuse`. */
static int signal_of(void (*misuse)(bb_device *device)) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* as the system has it: cmocka and sanitizers have handlers of their own */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        bb_device *device;
        bb_error err;
        if (bb_device_open("guarded", 1, &device, &err) != BB_OK) _exit(2);
        misuse(device);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void proper_use(bb_device *dev) {
    float host[4] = {1, 2, 3, 4}, *p = dev->ops->alloc(dev, sizeof host), *q = dev->ops->alloc(dev, sizeof host);
    dev->ops->copy_in(dev, p, host, sizeof host);
    dev->ops->copy(dev, q, p, sizeof host);
    dev->ops->add(dev, q + 1, p + 1, 3);
    dev->ops->copy_out(dev, host, q, sizeof host);
    if (host[0] != 1.0f || host[3] != 8.0f || guarded_copies(dev) != 2) abort();
    dev->ops->free(dev, p, sizeof host);
    dev->ops->free(dev, q, sizeof host);
    bb_device_close(dev);
}
static void read_by_the_host(bb_device *dev) {
    volatile char *p = dev->ops->alloc(dev, 64);
    (void)*p;
}
static void written_by_the_host(bb_device *dev) {
    volatile char *p = dev->ops->alloc(dev, 64);
    *p = 1;
}
static void host_memory_as_the_devices(bb_device *dev) {
    float host[4] = {0}, *p = dev->ops->alloc(dev, sizeof host);
    dev->ops->add(dev, p, host, 4);
}
static void the_devices_memory_as_the_hosts(bb_device *dev) {
    float *p = dev->ops->alloc(dev, 64), *q = dev->ops->alloc(dev, 64);
    dev->ops->copy_in(dev, p, q, 64);
}
static void past_the_end(bb_device *dev) {
    float *p = dev->ops->alloc(dev, 64), *q = dev->ops->alloc(dev, 68);
    dev->ops->add(dev, p, q, 17);
}
static void after_free(bb_device *dev) {
    float *p = dev->ops->alloc(dev, 64);
    dev->ops->free(dev, p, 64);
    dev->ops->zero(dev, p, 64);
}
static void freed_as_less(bb_device *dev) {
    float *p = dev->ops->alloc(dev, 64);
    dev->ops->free(dev, p, 32);
}
static void closed_with_memory(bb_device *dev) {
    (void)dev->ops->alloc(dev, 64);
    bb_device_close(dev);
}

static void misuse_ends_the_process(void **state) {
    (void)state;
    assert_int_equal(signal_of(proper_use), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_int_equal(signal_of(read_by_the_host), SIGSEGV);
    assert_int_equal(signal_of(written_by_the_host), SIGSEGV);
#endif
    assert_int_equal(signal_of(host_memory_as_the_devices), SIGABRT);
    assert_int_equal(signal_of(the_devices_memory_as_the_hosts), SIGABRT);
    assert_int_equal(signal_of(past_the_end), SIGABRT);
    assert_int_equal(signal_of(after_free), SIGABRT);
    assert_int_equal(signal_of(freed_as_less), SIGABRT);
    assert_int_equal(signal_of(closed_with_memory), SIGABRT);
}

/* ---- training ----------------------------------------------------------------------------------------------------------- */

typedef struct way {
    const char *name;
    bb_optimizer_kind kind;
    bool recompute, save_sync, shared, clipped;
    bb_save_copy save_copy;
} way;

static const way ways[] = {
    {.name = "plain", .kind = BB_OPTIM_ADAMW8BIT, .recompute = true},
    {.name = "f32", .kind = BB_OPTIM_ADAMW, .recompute = false, .save_sync = true, .clipped = true},
    {.name = "live", .kind = BB_OPTIM_ADAMW8BIT, .save_copy = BB_SAVE_COPY_NO},
    {.name = "copy", .kind = BB_OPTIM_ADAMW, .save_copy = BB_SAVE_COPY_YES},
    {.name = "zero", .kind = BB_OPTIM_ADAMW8BIT, .shared = true},
    {.name = "muon", .kind = BB_OPTIM_MUON},
};
enum { WAYS = sizeof ways / sizeof *ways };

static void train(const char *device_name, const way *w, const char *out, const char *resume, int stop_at) {
    bb_device *device = open_device(device_name);
    bb_config config = tiny;
    if (w->clipped) config.ste = BB_STE_CLIPPED;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_optimizer_options oo;
    bb_train_options to;
    bb_dataset *data;
    bb_trainer *trainer;
    bb_dist *dist = NULL;
    if (w->shared) assert_ok(bb_dist_open("single", &dist, &test_error));
    assert_ok(bb_model_create(device, &config, 11, &model, &test_error));
    bb_optimizer_options_default(&oo);
    oo.kind = w->kind;
    oo.share_over = dist;
    assert_ok(bb_optimizer_create(model, &oo, &optimizer, &test_error));
    bb_train_options_default(&to);
    to.out_dir = out;
    to.steps = STEPS;
    to.stop_at = stop_at;
    to.seq_len = SEQ;
    to.batch_size = to.grad_accum = 2;
    to.recompute = w->recompute;
    to.save_every = 2;
    to.save_sync = w->save_sync;
    to.save_copy = w->save_copy;
    to.dist = dist;
    to.spike_skip = 50;
    to.val_data = scratch_path("text.txt");
    to.val_every = 3;
    to.val_batches = 1;
    to.val_seq_len = SEQ;
    assert_ok(bb_byte_shard_dataset_open(scratch_path("text.txt"), SEQ, 5, 0, 1, &data, &test_error));
    assert_ok(bb_trainer_create(model, optimizer, NULL, &to, &trainer, &test_error));
    if (resume) assert_ok(bb_trainer_resume(trainer, resume, true, &test_error));
    assert_ok(bb_trainer_train(trainer, data, &test_error));
    bb_trainer_free(trainer);
    bb_dataset_close(data);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_dist_close(dist);
    bb_device_close(device);
}

static void assert_same_file(const char *a, const char *b) {
    uint8_t *data[2];
    size_t size[2];
    assert_ok(bb_file_read_all(a, 0, &data[0], &size[0], &test_error));
    assert_ok(bb_file_read_all(b, 0, &data[1], &size[1], &test_error));
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(data[0], data[1], size[0]);
    free(data[0]);
    free(data[1]);
}

static void in(char path[512], const char *dir, const char *way_name, const char *file) {
    char name[256];
    snprintf(name, sizeof name, "%s-%s%s%s", dir, way_name, file ? "/" : "", file ? file : "");
    snprintf(path, 512, "%s", scratch_path(name));
}

/* Checkpoints on the way and at the end are ref's, and a run that was stopped goes on as if it had not been. */
static void training_is_the_same(void **state) {
    (void)state;
    static const char *const files[] = {"step-00000002.safetensors", "step-00000006.safetensors"};
    for (int i = 0; i < WAYS; i++) {
        char ref[512], guarded[512], parts[512], a[512], b[512];
        in(ref, "ref", ways[i].name, NULL);
        in(guarded, "guarded", ways[i].name, NULL);
        in(parts, "parts", ways[i].name, NULL);
        train("ref", &ways[i], ref, NULL, 0);
        train("guarded", &ways[i], guarded, NULL, 0);
        train("guarded", &ways[i], parts, NULL, 3);
        train("guarded", &ways[i], parts, parts, 0);
        for (int f = 0; f < 2; f++) {
            in(a, "ref", ways[i].name, files[f]);
            in(b, "guarded", ways[i].name, files[f]);
            assert_same_file(a, b);
        }
        in(b, "parts", ways[i].name, files[1]);
        assert_same_file(a, b);
    }
}

/* A run can change its device between two steps. */
static void a_run_goes_on_on_another_device(void **state) {
    (void)state;
    char whole[512], parts[512], a[512], b[512];
    in(whole, "whole", "moved", NULL);
    in(parts, "parts", "moved", NULL);
    train("ref", &ways[0], whole, NULL, 0);
    train("guarded", &ways[0], parts, NULL, 3);
    train("ref", &ways[0], parts, parts, 5);
    train("guarded", &ways[0], parts, parts, 0);
    in(a, "whole", "moved", "step-00000006.safetensors");
    in(b, "parts", "moved", "step-00000006.safetensors");
    assert_same_file(a, b);
}

/* ---- everything else -------------------------------------------------------------------------------------------------- */

static void tensors_come_and_go(void **state) {
    (void)state;
    bb_device *device = open_device("guarded");
    bb_model *model;
    enum { N = 48 };
    float values[N], back[N], gradient[N];
    for (int i = 0; i < N; i++) values[i] = 0.25f * (float)i;
    static const uint8_t x[SEQ + 1] = "what is read, and what comes next";
    double loss;
    assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
    assert_ok(bb_model_set_tensor(model, "norm_f.weight", values, N, &test_error));
    assert_ok(bb_model_get_tensor(model, "norm_f.weight", back, N, &test_error));
    assert_memory_equal(values, back, sizeof values);
    assert_ok(bb_model_zero_gradients(model, &test_error));
    assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, x + 1, 1, SEQ}, 1, &loss, &test_error));
    assert_ok(bb_model_get_gradient(model, "norm_f.weight", gradient, N, &test_error));
    double sum = 0;
    for (int i = 0; i < N; i++) sum += fabs((double)gradient[i]);
    assert_true(isfinite(loss) && isfinite(sum) && sum > 0);
    values[7] = NAN;
    assert_fails(bb_model_set_tensor(model, "norm_f.weight", values, N, &test_error), BB_ERR_ARGUMENT, "norm_f.weight");
    bb_model_free(model);
    bb_device_close(device);
}

static void layers_and_quantizers_are_the_same(void **state) {
    (void)state;
    enum { M = 3, N = 10, K = 9 };
    float x[M * K], dy[M * N], w[N * K], y[2][M * N], dx[2][M * K], dw[2][N * K], scale[2][M];
    int8_t q[2][N * K];
    for (int i = 0; i < M * K; i++) x[i] = (float)bb_rng_normal(1, BB_STREAM_TEST, (uint64_t)i);
    for (int i = 0; i < M * N; i++) dy[i] = (float)bb_rng_normal(2, BB_STREAM_TEST, (uint64_t)i);
    for (int i = 0; i < N * K; i++) w[i] = (float)bb_rng_normal(3, BB_STREAM_TEST, (uint64_t)i);
    for (int i = 0; i < 2; i++) {
        bb_device *device = open_device(devices[i]);
        bb_bitlinear *layer;
        for (int estimator = 0; estimator < 2; estimator++) {
            bb_ste ste = estimator ? BB_STE_CLIPPED : BB_STE_IDENTITY;
            assert_ok(bb_bitlinear_create(device, &(bb_bitlinear_options){sizeof(bb_bitlinear_options), K, N, true, ste, 5},
                                          &layer, &test_error));
            assert_ok(bb_bitlinear_set_weight(layer, w, &test_error));
            assert_ok(bb_bitlinear_forward(layer, x, M, y[i], &test_error));
            assert_ok(bb_bitlinear_backward(layer, dy, M, dx[i], dw[i], &test_error));
            bb_bitlinear_free(layer);
        }
        assert_ok(bb_act_quantize(device, x, M, K, q[i], scale[i], &test_error));
        assert_ok(bb_ternary_quantize(device, w, N, K, q[i], scale[i], &test_error));
        bb_device_close(device);
    }
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
    assert_memory_equal(dw[0], dw[1], sizeof dw[0]);
    assert_memory_equal(q[0], q[1], sizeof q[0]);
}

/* Saved, loaded, packed, loaded for inference: on guarded what ref gives. */
static void files_are_the_same(void **state) {
    (void)state;
    static float logits[2][3][SEQ * 256];
    static const uint8_t x[SEQ + 1] = "what is read, and what comes next";
    for (int i = 0; i < 2; i++) {
        bb_device *device = open_device(devices[i]);
        bb_model *model;
        char saved[512], packed[512];
        in(saved, devices[i], "model", "f32.safetensors");
        in(packed, devices[i], "model", "packed.safetensors");
        char dir[512];
        in(dir, devices[i], "model", NULL);
        assert_ok(bb_file_make_dirs(dir, &test_error));
        assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
        assert_ok(bb_model_save(model, saved, &test_error));
        bb_model_free(model);
        assert_ok(bb_model_load(device, saved, &model, &test_error));
        assert_ok(bb_model_forward(model, x, 1, SEQ, logits[i][0], &test_error));
        bb_model_free(model);
        assert_ok(bb_model_load_for_inference(device, saved, &model, &test_error));
        assert_ok(bb_model_forward(model, x, 1, SEQ, logits[i][1], &test_error));
        assert_ok(bb_model_export_packed(model, packed, &test_error));
        bb_model_free(model);
        assert_ok(bb_model_load_for_inference(device, packed, &model, &test_error));
        assert_ok(bb_model_forward(model, x, 1, SEQ, logits[i][2], &test_error));
        bb_model_free(model);
        bb_device_close(device);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    char a[512], b[512];
    for (int f = 0; f < 2; f++) {
        const char *name = f ? "packed.safetensors" : "f32.safetensors";
        in(a, "ref", "model", name);
        in(b, "guarded", "model", name);
        assert_same_file(a, b);
    }
}

static void evaluation_is_the_same(void **state) {
    (void)state;
    bb_eval_result result[2][2];
    for (int i = 0; i < 2; i++) {
        bb_device *device = open_device(devices[i]);
        bb_model *model;
        assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
        for (int cached = 0; cached < 2; cached++) {
            bb_eval_options o;
            bb_eval_options_default(&o);
            o.seq_len = SEQ;
            o.cached = cached;
            o.max_batches = 4;
            assert_ok(bb_evaluate(model, scratch_path("text.txt"), &o, &result[i][cached], &test_error));
        }
        bb_model_free(model);
        bb_device_close(device);
    }
    for (int cached = 0; cached < 2; cached++) {
        assert_true(result[0][cached].bpb > 0);
        assert_true(result[0][cached].bpb == result[1][cached].bpb);
    }
}

/* Every kind of cache, with and without guesses by another model, past the end of the window. */
static void generation_is_the_same(void **state) {
    (void)state;
    static const uint8_t prompt[] = "a prompt that is read at once";
    for (int type = BB_KV_INT6; type <= BB_KV_F32; type++) {
        output out[2][2] = {0};
        for (int i = 0; i < 2; i++) {
            bb_device *device = open_device(devices[i]);
            bb_model *model, *draft;
            bb_config small = tiny;
            small.n_layer = 1;
            assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
            assert_ok(bb_model_create(device, &small, 12, &draft, &test_error));
            for (int guess = 0; guess < 2; guess++) {
                bb_generate_options o;
                bb_generate_options_default(&o);
                o.max_new_bytes = 80;
                o.context_length = 64;
                o.kv_cache = (bb_kv_type)type;
                o.speculate = guess ? BB_SPECULATE_ALWAYS : BB_SPECULATE_OFF;
                o.draft = guess ? draft : NULL;
                o.seed = 9;
                o.on_byte = collect;
                o.user = &out[i][guess];
                assert_ok(bb_generate(model, prompt, sizeof prompt - 1, &o, NULL, &test_error));
                assert_int_equal(out[i][guess].count, 80);
            }
            bb_model_free(draft);
            bb_model_free(model);
            bb_device_close(device);
        }
        for (int guess = 0; guess < 2; guess++) assert_memory_equal(out[0][guess].bytes, out[1][guess].bytes, 80);
        assert_memory_equal(out[1][0].bytes, out[1][1].bytes, 80);
    }
}

/* What times a device does not care where its memory is. */
static void it_can_be_profiled(void **state) {
    (void)state;
    bb_device *device = open_device("guarded"), *profiled;
    bb_model *model;
    static const uint8_t x[SEQ + 1] = "what is read, and what comes next";
    double loss;
    char *json;
    assert_ok(bb_profile_open(device, &profiled, &test_error));
    assert_ok(bb_model_create(profiled, &tiny, 11, &model, &test_error));
    assert_ok(bb_model_zero_gradients(model, &test_error));
    assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, x + 1, 1, SEQ}, 1, &loss, &test_error));
    assert_ok(bb_profile_report(profiled, &tiny, &json, &test_error));
    assert_non_null(strstr(json, "linear_backward gate_up"));
    bb_string_free(json);
    bb_model_free(model);
    bb_device_close(profiled);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_ends_the_process),
        cmocka_unit_test(training_is_the_same),
        cmocka_unit_test(a_run_goes_on_on_another_device),
        cmocka_unit_test(tensors_come_and_go),
        cmocka_unit_test(layers_and_quantizers_are_the_same),
        cmocka_unit_test(files_are_the_same),
        cmocka_unit_test(evaluation_is_the_same),
        cmocka_unit_test(generation_is_the_same),
        cmocka_unit_test(it_can_be_profiled),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_remove);
}
