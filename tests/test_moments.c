// SPDX-License-Identifier: MIT
/* The 8-bit optimizer's updates never exceed what f32 moments can give; checkpoints with the old format of moments resume. */
#include "support.h"

#include "core/adam8_map.h"
#include "modelfile/safetensors.h"
#include "scratch.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_write.h"

enum { STEPS = 500, BATCH = 2, LENGTH = 48 };

/* Matrices of at least 4,096 elements, so that their moments are in 8 bits. */
static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 1,
                               .d_model = 64,
                               .n_head = 2,
                               .n_kv_head = 2,
                               .d_ff = 64,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

/* The documentation of this project: real text, with some bytes that come up a few times in it. */
static int write_text(void **state) {
    static const char *const files[] = {"FORMAT.md", "QUICK_START.md"};
    if (scratch_create(state) != 0) return -1;
    FILE *out = fopen(scratch_path("text"), "wb");
    for (size_t i = 0; out && i < sizeof files / sizeof *files; i++) {
        char path[1024], buffer[4096];
        snprintf(path, sizeof path, BB_GOLDEN_DIR "/../../docs/%s", files[i]);
        FILE *in = fopen(path, "rb");
        if (!in) return -1;
        for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;) fwrite(buffer, 1, n, out);
        fclose(in);
    }
    return out ? fclose(out) : -1;
}

/* (1 - b1) / sqrt(1 - b2) * sqrt(sum over i < t of (b1^2 / b2)^i) * sqrt(1 - b2^t) / (1 - b1^t): what |update| / lr is at most
 * after t steps with f32 moments, whatever the gradients. */
static double bound_of(const bb_optimizer_options *o, int t) {
    double r = o->beta1 * o->beta1 / o->beta2, sum = 0;
    for (int i = 0; i < t; i++) sum += pow(r, i);
    return (1 - o->beta1) / sqrt(1 - o->beta2) * sqrt(sum) * sqrt(1 - pow(o->beta2, t)) / (1 - pow(o->beta1, t));
}

/* The largest |update| / lr of 500 steps, as a part of the bound. */
static double largest_update(const char *device_name, int steps) {
    const double lr = 1e-3;
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_dataset *data;
    bb_optimizer_options o;
    uint8_t x[BATCH * LENGTH], y[BATCH * LENGTH];
    double largest = 0;
    assert_ok(bb_device_open(device_name, 2, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
    bb_optimizer_options_default(&o);
    o.weight_decay = 0;
    assert_ok(bb_optimizer_create(model, &o, &optimizer, &test_error));
    assert_ok(bb_byte_shard_dataset_open(scratch_path("text"), LENGTH, 5, 0, 1, &data, &test_error));
    size_t n = (size_t)model->table.total;
    float *before = malloc(n * sizeof *before);
    assert_non_null(before);
    for (int t = 1; t <= steps; t++) {
        double loss, norm, bound = bound_of(&o, t);
        bool applied;
        assert_ok(bb_dataset_batch(data, BATCH, 1, 0, x, y, &test_error));
        bb_dataset_next_step(data, BATCH, 1);
        assert_ok(bb_model_zero_gradients(model, &test_error));
        assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, y, BATCH, LENGTH}, 1, &loss, &test_error));
        memcpy(before, model->params, n * sizeof *before);
        assert_ok(bb_optimizer_step(optimizer, lr, 1, 1, &norm, &applied, &test_error));
        assert_true(applied);
        for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)model->params[i] - (double)before[i]) / lr / bound);
    }
    free(before);
    bb_dataset_close(data);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
    return largest;
}

static void updates_are_bounded(void **state) {
    (void)state;
    double cpu = largest_update("cpu", STEPS), ref = largest_update("ref", 60);
    print_message("largest update: %.3f of the bound on cpu, %.3f on ref\n", cpu, ref);
    assert_true(cpu > 0.5 && cpu < 1.05);
    assert_true(ref > 0.5 && ref < 1.05);
}

/* One block in which v is rounded to nothing beside an m that is not: what the map alone would do. */
static void v_never_rounds_to_nothing(void **state) {
    (void)state;
    static const char *const devices[] = {"ref", "cpu"};
    enum { N = BB_ADAM8_BLOCK };
    for (int d = 0; d < 2; d++) {
        bb_device *device;
        float p[N] = {0}, g[N] = {0}, m_absmax[1], v_absmax[1];
        uint8_t m[N], v[N];
        bb_adam8_state s = {m, v, m_absmax, v_absmax};
        assert_ok(bb_device_open(devices[d], 1, &device, &test_error));
        device->ops->adamw8bit_init(device, s, N);
        double largest = 0;
        for (int t = 1; t <= 60; t++) {
            bb_adamw h = {.lr = 1,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .grad_scale = 1,
                          .bias_correction1 = 1 - pow(0.9, t),
                          .bias_correction2 = 1 - pow(0.95, t)};
            g[0] = 1;
            for (int i = 1; i < N; i++) g[i] = t % 20 == 1 ? 2e-4f * (float)i / N : 0;
            memset(p, 0, sizeof p);
            device->ops->adamw8bit_step(device, p, g, s, N, &h);
            assert_ok(device->ops->sync(device, &test_error));
            for (int i = 0; i < N; i++) largest = fmax(largest, fabs((double)p[i]));
        }
        assert_true(largest > 0.5 && largest < 1.05 * 1.165);
        bb_device_close(device);
    }
}

/* ---- old checkpoints --------------------------------------------------------------------------------------------------- */

enum { MAX_TENSORS = 64, BLOCK = BB_ADAM8_BLOCK };

typedef struct old_file {
    bb_file_tensor tensors[MAX_TENSORS];
    void *data[MAX_TENSORS];
    char names[MAX_TENSORS][96];
    int count;
} old_file;

static void add(old_file *f, const char *prefix, const char *name, bb_file_tensor tensor, void *data) {
    snprintf(f->names[f->count], sizeof f->names[0], "%s%s", prefix, name);
    tensor.name = f->names[f->count];
    f->tensors[f->count] = tensor;
    f->data[f->count++] = data;
}

/* Moments x in 8 bits, as version 0.1.0 wrote them; x becomes what they decode to. */
static void add_packed(old_file *f, const char *name, const bb_file_tensor *t, float *x, bool is_signed) {
    int64_t n = t->shape[0] * t->shape[1], blocks = n / BLOCK;
    uint8_t *codes = malloc((size_t)n);
    float *absmax = calloc((size_t)blocks, sizeof *absmax);
    assert_true(codes && absmax && n % BLOCK == 0);
    for (int64_t i = 0; i < n; i++) absmax[i / BLOCK] = fmaxf(absmax[i / BLOCK], fabsf(x[i]));
    for (int64_t i = 0; i < n; i++) {
        codes[i] = bb_adam8_code(bb_adam8_scale(absmax[i / BLOCK]) * x[i], is_signed);
        x[i] = bb_adam8_value(codes[i], is_signed) * absmax[i / BLOCK];
    }
    add(f, is_signed ? "opt.m8." : "opt.v8.", name,
        (bb_file_tensor){.dtype = BB_FILE_U8, .rank = 2, .shape = {t->shape[0], t->shape[1]}, .bytes = (uint64_t)n}, codes);
    add(f, is_signed ? "opt.m8_absmax." : "opt.v8_absmax.", name,
        (bb_file_tensor){.dtype = BB_FILE_F32, .rank = 1, .shape = {blocks}, .bytes = (uint64_t)blocks * sizeof *absmax},
        absmax);
}

static void old_checkpoints_are_converted(void **state) {
    (void)state;
    static const char embedding[] = "tok_emb.weight";
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_optimizer_options o;
    bb_tensor_source *st;
    uint8_t x[LENGTH];
    double loss, norm;
    bool applied;
    static old_file f;
    for (int i = 0; i < LENGTH; i++) x[i] = (uint8_t)(i * 5);
    assert_ok(bb_device_open("cpu", 1, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
    bb_optimizer_options_default(&o);
    assert_ok(bb_optimizer_create(model, &o, &optimizer, &test_error));
    for (int i = 0; i < 3; i++) {
        assert_ok(bb_model_zero_gradients(model, &test_error));
        assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, x, 1, LENGTH}, 1, &loss, &test_error));
        assert_ok(bb_optimizer_step(optimizer, 1e-3, 1, 1, &norm, &applied, &test_error));
    }
    bb_training_state ts = {.step = 3, .optimizer_steps = 3};
    assert_ok(bb_checkpoint_save(scratch_path("new"), model, optimizer, &ts, &test_error));

    assert_ok(bb_tensor_source_open(scratch_path("new"), &st, &test_error));
    float *m = NULL, *v = NULL;
    for (int i = 0; i < bb_tensor_source_count(st); i++) {
        const bb_file_tensor *t = bb_tensor_source_at(st, i);
        void *data = malloc(t->bytes);
        assert_non_null(data);
        assert_ok(bb_tensor_source_read(st, t, data, &test_error));
        bool first = strcmp(t->name, "opt.m.tok_emb.weight") == 0;
        if (!first && strcmp(t->name, "opt.v.tok_emb.weight") != 0) {
            add(&f, "", t->name, *t, data);
            continue;
        }
        *(first ? &m : &v) = data;
        add_packed(&f, embedding, t, data, first);
    }
    assert_true(m && v);
    bb_file_metadata metadata[] = {{"format", bb_tensor_source_metadata(st, "format")},
                                   {"config", bb_tensor_source_metadata(st, "config")},
                                   {"trained_length", bb_tensor_source_metadata(st, "trained_length")},
                                   {"training_state", bb_tensor_source_metadata(st, "training_state")}};
    bb_tensor_sink *sink;
    assert_ok(bb_safetensors_create(scratch_path("old"), f.tensors, f.count, metadata, 4, &sink, &test_error));
    for (int i = 0; i < f.count; i++) assert_ok(bb_tensor_sink_write(sink, f.data[i], f.tensors[i].bytes, &test_error));
    assert_ok(bb_tensor_sink_commit(sink, &test_error));
    bb_tensor_source_close(st);

    bb_training_state read;
    bb_optimizer_slot *slot = &optimizer->slots[optimizer->shards.first_piece[BB_PARAM_TOK_EMB]];
    size_t n = (size_t)model->table.entries[BB_PARAM_TOK_EMB].count;
    assert_true(slot->form == BB_MOMENTS_F32);
    memset(slot->m, 0, n * sizeof *m);
    memset(slot->v, 0, n * sizeof *v);
    assert_ok(bb_checkpoint_load(scratch_path("old"), model, optimizer, &read, &test_error));
    assert_true(read.moments_widened && optimizer->steps == 3);
    int raised = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(slot->m[i] == m[i] && slot->v[i] >= v[i]);
        raised += slot->v[i] > v[i];
        assert_true(fabsf(slot->m[i]) <= 1.2f * sqrtf(slot->v[i]));
    }
    print_message("%d of %zu second moments were raised\n", raised, n);
    assert_ok(bb_checkpoint_load(scratch_path("new"), model, optimizer, &read, &test_error));
    assert_false(read.moments_widened);
    free(m);
    free(v);
    for (int i = 0; i < f.count; i++) free(f.data[i]);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(updates_are_bounded), cmocka_unit_test(v_never_rounds_to_nothing),
                                       cmocka_unit_test(old_checkpoints_are_converted)};
    return cmocka_run_group_tests(tests, write_text, scratch_remove);
}
