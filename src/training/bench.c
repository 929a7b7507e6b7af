// SPDX-License-Identifier: MIT
/* Timings of the operations on a model's own buffers, and of whole training steps, against the peaks of the same minute. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/cpu_features.h"
#include "core/json.h"
#include "core/rng.h"
#include "model/config.h"
#include "training/optim.h"

typedef enum phase {
    EMBED,
    NORM_ATT,
    QKV,
    ROPE,
    ATT,
    QUANT_ATT,
    OUT,
    NORM_MLP,
    GATE_UP,
    SWIGLU,
    DOWN,
    HEAD,
    LOSS,
    B_HEAD,
    B_DOWN,
    B_SWIGLU,
    B_GATE_UP,
    B_NORM,
    B_OUT,
    B_ATT,
    B_ROPE,
    B_QKV,
    B_EMBED,
    QUANTIZE,
    SQUARES,
    ADAM,
    PHASES
} phase;

typedef struct bench {
    bb_model *model;
    bb_optimizer *optimizer;
    bool recompute;
    bb_peaks peaks;
    int64_t B, T, M, C, F, N_qkv, V, L;
    int repeats;
} bench;

/* Name, how often a step runs it, its operations (10^0) and by which peak they are limited. */
typedef struct phase_info {
    const char *name, *peak;
    double calls, operations, limit; /* limit: the peak in 10^9/s, 0 for what moves bytes and multiplies little */
} phase_info;

static phase_info describe_phase(const bench *b, phase p) {
    double M = (double)b->M, C = (double)b->C, F = (double)b->F, L = (double)b->L, V = (double)b->V;
    double attention = 2 * M * (double)b->T * C, bf16 = b->peaks.bf16 > 0 ? b->peaks.bf16 : b->peaks.f32;
    double forward = b->recompute ? 2 * L - 1 : L; /* all blocks but the last are computed again, up to their last product */
    double qkv = 2 * M * C * (double)b->N_qkv, out = 2 * M * C * C, gate_up = 4 * M * C * F, down = 2 * M * C * F;
    switch (p) {
    case EMBED: return (phase_info){"embedding_forward", NULL, 1, 0, 0};
    case NORM_ATT: return (phase_info){"rmsnorm_forward (attention)", NULL, forward, 0, 0};
    case QKV: return (phase_info){"linear_forward qkv", "int8", forward, qkv, b->peaks.int8};
    case ROPE: return (phase_info){"rope_forward", NULL, forward, 0, 0};
    case ATT: return (phase_info){"attention_forward", "bf16", forward, attention, bf16};
    case QUANT_ATT: return (phase_info){"act_quant", NULL, forward, 0, 0};
    case OUT: return (phase_info){"linear_forward o", "int8", forward, out, b->peaks.int8};
    case NORM_MLP: return (phase_info){"rmsnorm_forward (mlp)", NULL, forward, 0, 0};
    case GATE_UP: return (phase_info){"linear_forward gate_up", "int8", forward, gate_up, b->peaks.int8};
    case SWIGLU: return (phase_info){"swiglu_forward", NULL, forward, 0, 0};
    case DOWN: return (phase_info){"linear_forward down", "int8", L, down, b->peaks.int8};
    case HEAD: return (phase_info){"norm_f, head_forward", "f32", 1, 2 * M * C * V, b->peaks.f32};
    case LOSS: return (phase_info){"loss", NULL, 1, 0, 0};
    case B_HEAD: return (phase_info){"head_backward", "f32", 1, 4 * M * C * V, b->peaks.f32};
    case B_DOWN: return (phase_info){"linear_backward down", "bf16", L, 2 * down, bf16};
    case B_SWIGLU: return (phase_info){"swiglu_backward", NULL, L, 0, 0};
    case B_GATE_UP: return (phase_info){"linear_backward gate_up", "bf16", L, 2 * gate_up, bf16};
    case B_NORM: return (phase_info){"rmsnorm_backward", NULL, 2 * L, 0, 0};
    case B_OUT: return (phase_info){"linear_backward o", "bf16", L, 2 * out, bf16};
    case B_ATT: return (phase_info){"attention_backward", "bf16", L, 2 * attention, bf16};
    case B_ROPE: return (phase_info){"rope_backward", NULL, L, 0, 0};
    case B_QKV: return (phase_info){"linear_backward qkv", "bf16", L, 2 * qkv, bf16};
    case B_EMBED: return (phase_info){"embedding_backward", NULL, 1, 0, 0};
    case QUANTIZE: return (phase_info){"ternary_quant", NULL, 1, 0, 0};
    case SQUARES: return (phase_info){"sum_squares", NULL, 1, 0, 0};
    default: return (phase_info){bb_optimizer_is_8bit(b->optimizer) ? "adamw8bit_step" : "adamw_step", NULL, 1, 0, 0};
    }
}

/* One call, on the buffers that the training steps before it have left: values like those of training. */
static void run_phase(bench *b, phase p) {
    bb_model *model = b->model;
    bb_device *dev = model->device;
    const bb_ops *ops = dev->ops;
    bb_workspace *w = &model->ws;
    const bb_block *k = &model->blocks[0];
    const bb_block_saved *s = &w->saved[0];
    size_t act = bb_dtype_bytes(ops->act_dtype);
    int64_t heads = model->config.n_head, kv = model->config.n_kv_head, D = b->C / heads, width = b->N_qkv;
    uint8_t *qkv = s->qkv, *d_qkv = w->scratch.d_wide;
    float *wide = w->scratch.wide, *att = w->scratch.att;
    size_t k_at = (size_t)(heads * D) * act, v_at = (size_t)((heads + kv) * D) * act;
    float *embedding = model->params, *d_embedding = model->grads, eps = (float)model->config.norm_eps;
    bb_rows h = {.data = w->h, .dtype = BB_F32};
    bb_block_shape batch = {.B = b->B, .T = b->T, .rows = dev->forward_rows};
    bb_attention a = {.B = b->B,
                      .Tq = b->T,
                      .Tk = b->T,
                      .H = heads,
                      .Hk = kv,
                      .D = D,
                      .q_stride = width,
                      .kv_stride = width,
                      .kv_batch_stride = b->T * width,
                      .o_stride = b->C};
    double norm;
    bool applied;
    switch (p) {
    case EMBED: ops->embedding_forward(dev, w->dx, w->x, embedding, b->M, b->V, b->C); break;
    case NORM_ATT: ops->rmsnorm_forward(dev, s->qkv_in, s->r1, w->block_x[0], k->n1, eps, b->M, b->C); break;
    case QKV:
    case ROPE:
    case ATT:
    case QUANT_ATT:
        for (int64_t i = 0, n = bb_block_sequences(&batch); i < b->B; i += n) {
            int64_t m = i * b->T, rows = (a.B = n < b->B - i ? n : b->B - i) * b->T;
            void *kept = bb_rows_at(s->qkv, ops->act_dtype, m, width), *kept_att = bb_rows_at(s->att, ops->act_dtype, m, b->C);
            if (p == QKV) ops->linear_forward(dev, wide, NULL, bb_rows_from(s->qkv_in, m, b->C), &k->qkv, rows);
            if (p == ROPE) ops->rope_forward(dev, wide, kept, w->rope_cos, w->rope_sin, 0, a.B, b->T, heads + kv, D, width);
            if (p == ATT)
                ops->attention_forward(dev, att, kept_att, s->lse + m * heads, wide, wide + heads * D, wide + (heads + kv) * D,
                                       &a);
            if (p == QUANT_ATT) ops->act_quant(dev, bb_rows_from(s->o_in, m, b->C), att, rows, b->C);
        }
        break;
    case OUT: ops->linear_forward(dev, s->x_mid, w->block_x[0], s->o_in, &k->o, b->M); break;
    case NORM_MLP: ops->rmsnorm_forward(dev, s->gate_up_in, s->r2, s->x_mid, k->n2, eps, b->M, b->C); break;
    case GATE_UP:
    case SWIGLU:
        for (int64_t m = 0, most = bb_block_rows(&batch); m < b->M; m += most) {
            int64_t n = b->M - m < most ? b->M - m : most;
            void *kept = bb_rows_at(s->gate_up, ops->act_dtype, m, 2 * b->F);
            if (p == GATE_UP) ops->linear_forward(dev, wide, NULL, bb_rows_from(s->gate_up_in, m, b->C), &k->gate_up, n);
            if (p == SWIGLU) ops->swiglu_forward(dev, bb_rows_from(s->down_in, m, b->F), kept, wide, n, b->F);
        }
        break;
    case DOWN: ops->linear_forward(dev, w->block_x[1], s->x_mid, s->down_in, &k->down, b->M); break;
    case HEAD:
        ops->rmsnorm_forward(dev, h, w->final_r, w->block_x[1], k->n1, eps, b->M, b->C);
        ops->head_forward(dev, w->logits, w->h, embedding, b->M, b->V, b->C);
        break;
    case LOSS:
        ops->loss_forward(dev, w->nll, w->logits, w->y, b->M, b->V);
        ops->loss_backward(dev, w->logits, w->logits, w->y, 1 / (float)b->M, b->M, b->V);
        break;
    case B_HEAD: ops->head_backward(dev, w->scratch.d_narrow, d_embedding, w->logits, w->h, embedding, b->M, b->V, b->C); break;
    case B_DOWN:
        ops->linear_backward(dev, w->scratch.d_narrow, k->dw_down, false, w->dx, BB_F32, s->down_in, &k->down, b->M);
        break;
    case B_SWIGLU: ops->swiglu_backward(dev, w->scratch.d_wide, s->gate_up, w->scratch.d_narrow, b->M, b->F); break;
    case B_GATE_UP:
        ops->linear_backward(dev, w->scratch.d_narrow, k->dw_gate_up, false, w->scratch.d_wide, ops->act_dtype, s->gate_up_in,
                             &k->gate_up, b->M);
        break;
    case B_NORM: ops->rmsnorm_backward(dev, w->dx, k->dn2, w->scratch.d_narrow, s->x_mid, k->n2, s->r2, b->M, b->C); break;
    case B_OUT: ops->linear_backward(dev, w->scratch.d_narrow, k->dw_o, false, w->dx, BB_F32, s->o_in, &k->o, b->M); break;
    case B_ATT:
        ops->attention_backward(dev, d_qkv, d_qkv + k_at, d_qkv + v_at, w->scratch.d_narrow, qkv, qkv + k_at, qkv + v_at,
                                s->att, s->lse, &a);
        break;
    case B_ROPE: ops->rope_backward(dev, d_qkv, w->rope_cos, w->rope_sin, b->B, b->T, heads + kv, D, width); break;
    case B_QKV:
        ops->linear_backward(dev, w->scratch.d_narrow, k->dw_qkv, false, d_qkv, ops->act_dtype, s->qkv_in, &k->qkv, b->M);
        break;
    case B_EMBED: ops->embedding_backward(dev, d_embedding, w->x, w->dx, b->M, b->V, b->C); break;
    case QUANTIZE:
        bb_model_parameters_changed(model);
        bb_model_prepare(model);
        break;
    case SQUARES: {
        double of_all;
        (void)bb_optimizer_grad_norm(b->optimizer, &of_all, NULL);
        break;
    }
    case ADAM: bb_optimizer_step(b->optimizer, 0, 0, 1, &norm, &applied, NULL); break;
    default: break;
    }
    ops->sync(dev, NULL);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void fill_text(uint8_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = (uint8_t)(' ' + bb_rng_below(1, BB_STREAM_BENCH, (uint64_t)i, 90));
}

static bb_status one_step(bench *b, const uint8_t *x, bb_error *err) {
    double loss, norm;
    bool applied;
    BB_TRY(bb_model_zero_gradients(b->model, err));
    BB_TRY(bb_model_loss_backward(b->model, x, x + 1, (int)b->B, (int)b->T, 1, &loss, err));
    return bb_optimizer_step(b->optimizer, 1e-5, 1, 1, &norm, &applied, err);
}

/* The least seconds that a step can take at the measured peaks: forward products in int8, backward and attention in bf16. */
static double limit_seconds(const bench *b) {
    double seconds = 0;
    for (phase p = 0; p < PHASES; p++) {
        phase_info i = describe_phase(b, p);
        if (i.limit > 0) seconds += i.calls * i.operations / (i.limit * 1e9);
    }
    return seconds;
}

static void tell(const bb_bench_options *o, const char *line) {
    if (o->on_progress) o->on_progress(o->user, line);
}

static bb_status measure_steps(bench *b, const uint8_t *x, double *times, double *step, bb_error *err) {
    BB_TRY(one_step(b, x, err)); /* warms up, and fills the buffers */
    for (int r = 0; r < b->repeats; r++) {
        double start = bb_clock_seconds();
        BB_TRY(one_step(b, x, err));
        times[r] = bb_clock_seconds() - start;
    }
    *step = median(times, b->repeats);
    return BB_OK;
}

static void measure_operations(bench *b, double *times, double step, const bb_bench_options *o, json_t *root) {
    double gemm = 0, attention = 0, rest = 0, squares = 0;
    json_t *list = json_array();
    json_object_set_new(root, "operations", list);
    for (phase p = 0; p < PHASES; p++) {
        phase_info i = describe_phase(b, p);
        tell(o, i.name);
        run_phase(b, p);
        for (int r = 0; r < b->repeats; r++) {
            double start = bb_clock_seconds();
            run_phase(b, p);
            times[r] = bb_clock_seconds() - start;
        }
        double t = median(times, b->repeats);
        if (p == SQUARES) squares = t;
        if (p == ADAM) t = fmax(t - squares, 0); /* an optimizer's step takes the norm as well, which is listed before it */
        double total = t * i.calls;
        json_t *one = json_pack("{s:s, s:f, s:f, s:f}", "name", i.name, "calls", i.calls, "ms", t * 1e3, "percent_of_step",
                                100 * total / step);
        if (i.limit > 0) {
            double g = i.operations / t * 1e-9;
            json_object_set_new(one, "gops", json_real(g));
            json_object_set_new(one, "peak", json_string(i.peak));
            json_object_set_new(one, "percent_of_peak", json_real(100 * g / i.limit));
        }
        json_array_append_new(list, one);
        *(p == ATT || p == B_ATT ? &attention : i.limit > 0 ? &gemm : &rest) += total;
    }
    json_object_set_new(root, "shares",
                        json_pack("{s:f, s:f, s:f}", "gemm", 100 * gemm / step, "attention", 100 * attention / step, "rest",
                                  100 * rest / step));
}

static bb_status measure(bench *b, const uint8_t *x, const bb_bench_options *o, json_t *root, bb_error *err) {
    double *times = malloc((size_t)b->repeats * sizeof *times), step;
    if (!times) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status;
    char line[160];
    BB_TRY_GOTO(status, done, measure_steps(b, x, times, &step, err));
    double limit = limit_seconds(b), bytes = (double)b->M;
    json_object_set_new(root, "step",
                        json_pack("{s:f, s:f, s:f, s:f}", "ms", step * 1e3, "bytes_per_s", bytes / step, "limit_bytes_per_s",
                                  bytes / limit, "percent_of_limit", 100 * limit / step));
    if (!o->step_only) measure_operations(b, times, step, o, root);
    snprintf(line, sizeof line, "step %.1f ms, %.0f bytes/s, %.0f%% of the limit", step * 1e3, bytes / step,
             100 * limit / step);
    tell(o, line);
done:
    free(times);
    return status;
}

void bb_bench_options_default(bb_bench_options *options) {
    *options = (bb_bench_options){.shape = "S", .seq_len = 512, .repeats = 3, .optim = BB_OPTIM_ADAMW8BIT};
}

bb_status bb_bench(bb_device *device, const bb_bench_options *o, char **json, bb_error *err) {
    BB_DEVICE_SCOPE(device);
    *json = NULL;
    bb_config c;
    int batch_size;
    BB_TRY(bb_config_of_shape(o->shape, &c, &batch_size, err));
    if (o->batch_size < 0 || o->seq_len < 0 || o->repeats < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d, seq_len %d, repeats %d: expected 0 or more, and 1 or more",
                       o->batch_size, o->seq_len, o->repeats);
    bench b = {.B = o->batch_size ? o->batch_size : batch_size,
               .T = o->seq_len ? o->seq_len : 512,
               .repeats = o->repeats,
               .recompute = o->recompute};
    b.M = b.B * b.T;
    b.C = c.d_model;
    b.F = c.d_ff;
    b.N_qkv = 3 * b.C;
    b.V = c.vocab_size;
    b.L = c.n_layer;
    bb_optimizer_options options;
    bb_optimizer_options_default(&options);
    options.kind = o->optim;
    uint8_t *x = malloc((size_t)b.M + 1);
    json_t *root = NULL;
    bb_status status;
    char processor[BB_CPU_FEATURES_BYTES];
    bb_cpu_features(processor, sizeof processor);
    if (!x) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto done;
    }
    fill_text(x, b.M + 1);
    tell(o, "measuring the peaks");
    device->ops->measure_peaks(device, &b.peaks); /* before the model is there: it takes memory of its own */
    BB_TRY_GOTO(status, done, bb_model_create(device, &c, 1, &b.model, err));
    BB_TRY_GOTO(status, done, bb_model_reserve(b.model, (int)b.B, (int)b.T, true, o->recompute, err));
    BB_TRY_GOTO(status, done, bb_optimizer_create(b.model, &options, &b.optimizer, err));
    root = json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:b, s:I, s:{s:f, s:f, s:f, s:f}}", "processor", processor, "device",
                     device->ops->name, "description", bb_device_description(device), "threads", device->threads, "shape",
                     o->shape, "batch_size", (json_int_t)b.B, "seq_len", (json_int_t)b.T, "recompute", (int)b.recompute,
                     "parameters", (json_int_t)b.model->table.total, "peaks", "f32", b.peaks.f32, "bf16", b.peaks.bf16, "int8",
                     b.peaks.int8, "read_gb", b.peaks.read_gb);
    BB_TRY_GOTO(status, done, measure(&b, x, o, root, err));
    *json = bb_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
done:
    json_decref(root);
    bb_optimizer_free(b.optimizer);
    bb_model_free(b.model);
    free(x);
    return status;
}
