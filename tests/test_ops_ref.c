// SPDX-License-Identifier: MIT
/* Compares the reference operations with their definitions: formulas written out a second time, finite differences if an
 * operation is smooth, the stated rule if its gradient is straight-through. */
#include "ops_cases.h"

static bb_device *dev; /* ref's memory is ordinary process memory, so host arrays can be used as device memory */

static int open_device(void **state) {
    (void)state;
    return bb_device_open("ref", 0, &dev, NULL) == BB_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    bb_device_close(dev);
    return 0;
}

static double dot(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static double max_abs(const float *x, int64_t n) {
    double max = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, fabs((double)x[i]));
    return max;
}

/* d(objective)/dx[i], by a fourth-order central difference, against gradient[i]. Inputs are of size 1, so with h = 1/16 the
 * step is exact in f32; truncation is about h^4/30 = 5e-7 of the fifth derivative, the f32 rounding of the outputs adds about
 * 2^-25 * sqrt(terms) / h = 5e-6. A wrong term would show at 1e-2. */
static void assert_gradient(double (*objective)(void *), void *context, float *x, const float *gradient, int64_t n,
                            const char *what) {
    const double h = 1.0 / 16;
    double tolerance = 1e-4 * max_abs(gradient, n) + 1e-5;
    for (int64_t i = 0; i < n; i++) {
        float at = x[i];
        double f[5];
        for (int j = -2; j <= 2; j++) {
            x[i] = (float)((double)at + j * h);
            f[j + 2] = objective(context);
        }
        x[i] = at;
        ops_assert_near((double)gradient[i], (f[0] - 8 * f[1] + 8 * f[3] - f[4]) / (12 * h), tolerance, what, i);
    }
}

/* -- quantizers ------------------------------------------------------------------------------------------------------------ */

static void act_quant_rounds_half_to_even(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 0);
    float x[10] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127.0f, 0.4999f, 126.5f};
    const int8_t expected[10] = {127, 0, 2, 2, 0, -2, -2, -127, 0, 126};
    bb_rows y = ops_rows(&s, 1, 10, BB_I8);
    dev->ops->act_quant(dev, y, x, 1, 10);
    assert_float_equal(y.scale[0], 1.0f, 0.0f);
    assert_memory_equal(y.data, expected, sizeof expected);
    ops_end(&s);
}

static void act_quant_of_small_rows(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 0);
    float x[4][3] = {{0, 0, 0}, {1e-9f, -1e-9f, 0}, {1e-7f, -2e-8f, 0}, {1, NAN, 0}};
    const int8_t expected[3][3] = {{0, 0, 0}, {0, 0, 0}, {10, -2, 0}};
    bb_rows y = ops_rows(&s, 4, 3, BB_I8);
    dev->ops->act_quant(dev, y, &x[0][0], 4, 3);
    for (int m = 0; m < 3; m++) assert_float_equal(y.scale[m], 1e-8f, 0.0f);
    assert_memory_equal(y.data, expected, sizeof expected);
    assert_true(isnan(y.scale[3]));
    ops_end(&s);
}

static void act_quant_uses_the_whole_range_and_no_more(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 1);
    enum { M = 200, K = 37 };
    float *x = ops_normal_f32(&s, M * K, 3.0);
    bb_rows y = ops_rows(&s, M, K, BB_I8);
    dev->ops->act_quant(dev, y, x, M, K);
    for (int m = 0; m < M; m++) {
        const int8_t *q = (const int8_t *)y.data + m * K;
        int largest = 0;
        for (int k = 0; k < K; k++) {
            largest = abs(q[k]) > largest ? abs(q[k]) : largest;
            ops_assert_near((double)y.scale[m] * q[k], (double)x[m * K + k], 0.50001 * (double)y.scale[m], "act_quant", k);
        }
        assert_int_equal(largest, 127);
    }
    ops_end(&s);
}

static void act_quant_copies_where_not_quantized(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 2);
    float *x = ops_normal_f32(&s, 15, 1.0);
    bb_rows y = ops_rows(&s, 3, 5, BB_F32);
    dev->ops->act_quant(dev, y, x, 3, 5);
    assert_memory_equal(y.data, x, 15 * sizeof(float));
    ops_end(&s);
}

/* Rows 0, 1 | 2 | 3: each segment has a scale of its own. In the first, g = 1, so that ties and the clip show. */
static void ternary_quant_follows_its_rule(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 0);
    float w[4][4] = {{0.5f, -0.5f, 1.5f, -1.5f}, {0.75f, -0.25f, 3.0f, 0.0f}, {0, 0, 0, 0}, {1e-9f, -4e-9f, 6e-9f, 1e-8f}};
    const int8_t expected[4][4] = {{0, 0, 1, -1}, {1, 0, 1, 0}, {0, 0, 0, 0}, {0, 0, 1, 1}};
    int8_t q[4][4];
    bb_ternary t = {.n = 4, .k = 4, .segments = 3, .segment_end = {2, 3, 4}};
    t.scale = ops_room(&s, 3 * sizeof(float));
    t.data = ops_room(&s, dev->ops->ternary_bytes(dev, &t));
    dev->ops->ternary_quant(dev, &t, &w[0][0]);
    dev->ops->ternary_unpack(dev, &q[0][0], &t);
    assert_float_equal(t.scale[0], 1.0f, 0.0f);
    assert_float_equal(t.scale[1], 1e-8f, 0.0f);
    assert_float_equal(t.scale[2], 1e-8f, 0.0f);
    assert_memory_equal(q, expected, sizeof expected);
    ops_end(&s);
}

static void ste_clip_zeroes_above_the_scale(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 0);
    float w[2][3] = {{1.0f, -1.0f, 1.0f}, {3.0f, -1.5f, 0.0f}}, dw[2][3] = {{1, 2, 3}, {4, 5, 6}};
    const float expected[2][3] = {{1, 2, 3}, {0, 5, 6}}; /* scales 1 and 1.5: |w/g| = 1 stays */
    bb_ternary t = {.n = 2, .k = 3, .segments = 2, .segment_end = {1, 2}};
    t.scale = ops_room(&s, 2 * sizeof(float));
    t.data = ops_room(&s, dev->ops->ternary_bytes(dev, &t));
    dev->ops->ternary_quant(dev, &t, &w[0][0]);
    dev->ops->ste_clip(dev, &dw[0][0], &w[0][0], &t);
    assert_memory_equal(dw, expected, sizeof expected);
    ops_end(&s);
}

/* -- linear ---------------------------------------------------------------------------------------------------------------- */

/* Forward, with and without a residual, and the straight-through backward, from the formulas of ops.h over what the quantizers
 * gave. */
static void check_linear(int64_t M, int64_t N, int64_t K, int segments, bb_dtype dtype) {
    ops_session s = ops_begin(dev, (uint64_t)(M * N * K));
    float *x = ops_normal(&s, M * K, 1.0), *w = ops_normal_f32(&s, N * K, 0.3), *dy = ops_normal(&s, M * N, 1.0);
    float *residual = ops_normal_f32(&s, M * N, 1.0), *dw = ops_normal_f32(&s, N * K, 1.0);
    float *y = ops_host_f32(&s, M * N), *sum = ops_host_f32(&s, M * N), *dx = ops_host_f32(&s, M * K);
    int8_t *q = ops_host(&s, (size_t)(N * K));
    bb_ternary t = ops_ternary(&s, N, K, segments, w);
    bb_rows rows = ops_rows(&s, M, K, dtype);
    dev->ops->act_quant(dev, rows, x, M, K);
    dev->ops->ternary_unpack(dev, q, &t);

    double *used = ops_room(&s, (size_t)(M * K) * sizeof *used), *weight = ops_room(&s, (size_t)(N * K) * sizeof *weight);
    for (int64_t i = 0; i < M * K; i++)
        used[i] = dtype == BB_I8 ? (double)rows.scale[i / K] * ((const int8_t *)rows.data)[i] : (double)x[i];
    for (int64_t n = 0, segment = 0; n < N; n++) {
        if (n == t.segment_end[segment]) segment++;
        for (int64_t k = 0; k < K; k++) weight[n * K + k] = (double)t.scale[segment] * q[n * K + k];
    }

    memcpy(sum, residual, (size_t)(M * N) * sizeof *sum);
    dev->ops->linear_forward(dev, y, NULL, rows, &t, M);
    dev->ops->linear_forward(dev, sum, sum, rows, &t, M);
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double expected = 0;
            for (int64_t k = 0; k < K; k++) expected += used[m * K + k] * weight[n * K + k];
            ops_assert_near((double)y[m * N + n], expected, 1e-6 * (1 + fabs(expected)), "y", m * N + n);
            ops_assert_near((double)sum[m * N + n], expected + (double)residual[m * N + n], 1e-6 * (2 + fabs(expected)),
                            "y + residual", m * N + n);
        }

    float *dw_before = ops_host_f32(&s, N * K);
    memcpy(dw_before, dw, (size_t)(N * K) * sizeof *dw);
    dev->ops->linear_backward(dev, dx, (bb_layer_gradient){dy, BB_F32, dw, true}, rows, &t, M);
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < K; k++) {
            double expected = 0;
            for (int64_t n = 0; n < N; n++) expected += (double)dy[m * N + n] * weight[n * K + k];
            ops_assert_near((double)dx[m * K + k], expected, 1e-6 * (1 + fabs(expected)), "dx", m * K + k);
        }
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            double expected = (double)dw_before[n * K + k];
            for (int64_t m = 0; m < M; m++) expected += (double)dy[m * N + n] * used[m * K + k];
            ops_assert_near((double)dw[n * K + k], expected, 1e-6 * (1 + fabs(expected)), "dw", n * K + k);
        }

    memcpy(dw, dw_before, (size_t)(N * K) * sizeof *dw);
    dev->ops->linear_backward(dev, NULL, (bb_layer_gradient){dy, BB_F32, dw, true}, rows, &t, M); /* without dx */
    assert_true(max_abs(dw, N * K) > 0 && memcmp(dw, dw_before, (size_t)(N * K) * sizeof *dw) != 0);
    ops_end(&s);
}

static void linear_follows_its_formulas(void **state) {
    (void)state;
    check_linear(1, 1, 1, 1, BB_I8);
    check_linear(3, 9, 20, 1, BB_I8);
    check_linear(5, 12, 17, 3, BB_I8);
    check_linear(4, 11, 7, 2, BB_F32);
}

/* -- smooth operations: `c` weighs the outputs into one number ------------------------------------------------------------ */

typedef struct norm_case {
    int64_t M, C;
    float *x, *w, *c, *y, *r;
} norm_case;

static double norm_objective(void *context) {
    norm_case *n = context;
    dev->ops->rmsnorm_forward(dev, (bb_rows){.data = n->y, .dtype = BB_F32}, n->r, n->x, &(bb_norm){n->w, 1e-6f, n->M, n->C});
    return dot(n->y, n->c, n->M * n->C);
}

static void check_rmsnorm(int64_t M, int64_t C) {
    ops_session s = ops_begin(dev, (uint64_t)(100 + M * C));
    norm_case n = {
        .M = M, .C = C, .x = ops_normal(&s, M * C, 1.0), .w = ops_normal(&s, C, 1.0), .c = ops_normal(&s, M * C, 1.0)};
    n.y = ops_host_f32(&s, M * C);
    n.r = ops_host_f32(&s, M);
    for (int64_t m = 0; m < M; m++) n.x[m * C] += copysignf(1.0f, n.x[m * C]); /* no row near 0, where the norm is steep */
    norm_objective(&n);
    for (int64_t i = 0; i < M * C; i++) {
        const float *row = n.x + i / C * C;
        double expected = (double)n.x[i] * (double)n.w[i % C] / sqrt(dot(row, row, C) / (double)C + 1e-6);
        ops_assert_near((double)n.y[i], expected, 2e-7 * fabs(expected), "rmsnorm", i);
    }
    float *dx = ops_normal(&s, M * C, 1.0), *dw = ops_normal(&s, C, 1.0); /* gradients are added to what is there */
    float *dx_before = ops_host_f32(&s, M * C), *dw_before = ops_host_f32(&s, C);
    memcpy(dx_before, dx, (size_t)(M * C) * sizeof *dx);
    memcpy(dw_before, dw, (size_t)C * sizeof *dw);
    dev->ops->rmsnorm_backward(dev, dx, dw, n.c, n.x, n.r, &(bb_norm){n.w, 1e-6f, M, C});
    for (int64_t i = 0; i < M * C; i++) dx[i] -= dx_before[i];
    for (int64_t i = 0; i < C; i++) dw[i] -= dw_before[i];
    assert_gradient(norm_objective, &n, n.x, dx, M * C, "rmsnorm dx");
    assert_gradient(norm_objective, &n, n.w, dw, C, "rmsnorm dw");
    ops_end(&s);
}

static void rmsnorm_and_its_gradient(void **state) {
    (void)state;
    check_rmsnorm(3, 24);
    check_rmsnorm(2, 7);
}

/* Quantizing in the same pass is quantizing the result. */
static void fused_quantization_equals_two_steps(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 3);
    enum { M = 6, C = 33 };
    float *x = ops_normal_f32(&s, M * C, 2.0), *w = ops_normal_f32(&s, C, 1.0), *gate_up = ops_normal_f32(&s, 2 * M * C, 2.0);
    float *r = ops_host_f32(&s, M);
    bb_rows plain = ops_rows(&s, M, C, BB_F32), fused = ops_rows(&s, M, C, BB_I8), after = ops_rows(&s, M, C, BB_I8);
    for (int which = 0; which < 2; which++) {
        if (which == 0) {
            dev->ops->rmsnorm_forward(dev, plain, r, x, &(bb_norm){w, 1e-6f, M, C});
            dev->ops->rmsnorm_forward(dev, fused, r, x, &(bb_norm){w, 1e-6f, M, C});
        } else {
            dev->ops->swiglu_forward(dev, plain, NULL, gate_up, M, C);
            dev->ops->swiglu_forward(dev, fused, NULL, gate_up, M, C);
        }
        dev->ops->act_quant(dev, after, plain.data, M, C);
        assert_memory_equal(fused.data, after.data, M * C);
        assert_memory_equal(fused.scale, after.scale, M * sizeof(float));
    }
    ops_end(&s);
}

typedef struct swiglu_case {
    int64_t M, F;
    float *gate_up, *c, *y;
} swiglu_case;

static double swiglu_objective(void *context) {
    swiglu_case *g = context;
    dev->ops->swiglu_forward(dev, (bb_rows){.data = g->y, .dtype = BB_F32}, NULL, g->gate_up, g->M, g->F);
    return dot(g->y, g->c, g->M * g->F);
}

static void swiglu_and_its_gradient(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 4);
    enum { M = 3, F = 11 };
    swiglu_case g = {.M = M, .F = F, .gate_up = ops_normal(&s, 2 * M * F, 2.0), .c = ops_normal(&s, M * F, 1.0)};
    g.y = ops_host_f32(&s, M * F);
    swiglu_objective(&g);
    for (int m = 0; m < M; m++)
        for (int f = 0; f < F; f++) {
            double z = (double)g.gate_up[m * 2 * F + f], up = (double)g.gate_up[m * 2 * F + F + f];
            double expected = z / (1 + exp(-z)) * up;
            ops_assert_near((double)g.y[m * F + f], expected, 1e-7 * fabs(expected), "swiglu", m * F + f);
        }
    float *d = ops_host_f32(&s, 2 * M * F);
    dev->ops->swiglu_backward(dev, d, g.gate_up, g.c, M, F);
    assert_gradient(swiglu_objective, &g, g.gate_up, d, 2 * M * F, "swiglu");
    ops_end(&s);
}

static void rope_turns_and_turns_back(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 5);
    enum { B = 2, T = 3, HEADS = 2, D = 6, STRIDE = HEADS * D + 5, AT = 4, N = B * T * STRIDE };
    float *x = ops_normal(&s, N, 1.0), *turned = ops_host_f32(&s, N);
    float *cosine = ops_host_f32(&s, (AT + T) * D / 2), *sine = ops_host_f32(&s, (AT + T) * D / 2);
    for (int i = 0; i < (AT + T) * D / 2; i++) {
        int position = i / (D / 2), pair = i % (D / 2);
        double angle = position * pow(100.0, -2.0 * pair / D);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    float *kept = ops_host_f32(&s, N);
    const bb_rope rope = {cosine, sine, B, T, HEADS, D, STRIDE};
    memcpy(turned, x, N * sizeof *x);
    dev->ops->rope_forward(dev, turned, kept, AT, &rope);
    assert_memory_equal(kept, turned, N * sizeof *x);
    for (int row = 0; row < B * T; row++)
        for (int c = 0; c < STRIDE; c++) {
            int i = row * STRIDE + c, d = c % D, pair = d % (D / 2);
            double angle = (AT + row % T) * pow(100.0, -2.0 * pair / D), expected = (double)x[i];
            if (c < HEADS * D && d < D / 2)
                expected = (double)x[i] * cos(angle) - (double)x[i + D / 2] * sin(angle);
            else if (c < HEADS * D)
                expected = (double)x[i] * cos(angle) + (double)x[i - D / 2] * sin(angle);
            ops_assert_near((double)turned[i], expected, 1e-6, "rope", i);
        }
    memcpy(turned, x, N * sizeof *x);
    dev->ops->rope_forward(dev, turned, NULL, 0, &rope);
    dev->ops->rope_backward(dev, turned, &rope);
    for (int i = 0; i < N; i++) ops_assert_near((double)turned[i], (double)x[i], 1e-6, "rope there and back", i);
    ops_end(&s);
}

typedef struct attention_case {
    bb_attention a;
    float *q, *k, *v, *o, *kept, *lse, *c;
} attention_case;

static double attention_objective(void *context) {
    attention_case *n = context;
    dev->ops->attention_forward(dev, n->o, n->kept, n->lse, (bb_qkv){n->q, n->k, n->v}, &n->a);
    return dot(n->o, n->c, n->a.B * n->a.Tq * n->a.o_stride);
}

/* The whole score row of each query, by definition. */
static void check_attention_forward(const attention_case *n) {
    const bb_attention *a = &n->a;
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t h = 0; h < a->H; h++)
            for (int64_t t = 0; t < a->Tq; t++) {
                const float *q = n->q + (b * a->Tq + t) * a->q_stride + h * a->D;
                double sum = 0, out[64] = {0};
                for (int64_t j = 0; j <= t + a->Tk - a->Tq; j++) {
                    int64_t at = b * a->kv_batch_stride + j * a->kv_stride + h / (a->H / a->Hk) * a->D;
                    double e = exp(dot(q, n->k + at, a->D) / sqrt((double)a->D));
                    sum += e;
                    for (int64_t d = 0; d < a->D; d++) out[d] += e * (double)n->v[at + d];
                }
                int64_t at = (b * a->Tq + t) * a->o_stride + h * a->D;
                for (int64_t d = 0; d < a->D; d++)
                    ops_assert_near((double)n->o[at + d], out[d] / sum, 1e-6, "attention", at + d);
                ops_assert_near((double)n->lse[(b * a->H + h) * a->Tq + t], log(sum), 2e-6, "lse", t);
            }
}

/* q, k and v lie in rows of one array, as in training; Tq < Tk leaves the first queries out. */
static void check_attention(int64_t B, int64_t Tq, int64_t Tk, int64_t H, int64_t Hk, int64_t D) {
    ops_session s = ops_begin(dev, (uint64_t)(B * 1000000 + Tq * 10000 + Tk * 100 + H * 10 + D));
    attention_case n = {.a = {.B = B, .Tq = Tq, .Tk = Tk, .H = H, .Hk = Hk, .D = D}};
    n.a.q_stride = H * D + 3;
    n.a.kv_stride = 2 * Hk * D;
    n.a.kv_batch_stride = Tk * n.a.kv_stride + 4;
    n.a.o_stride = H * D + 1;
    int64_t q_count = B * Tq * n.a.q_stride, kv_count = B * n.a.kv_batch_stride, o_count = B * Tq * n.a.o_stride;
    float *kv = ops_normal(&s, kv_count, 1.0), *d_kv = ops_host_f32(&s, kv_count), *dq = ops_host_f32(&s, q_count);
    n.q = ops_normal(&s, q_count, 1.0);
    n.c = ops_normal(&s, o_count, 1.0);
    n.k = kv;
    n.v = kv + Hk * D;
    n.o = ops_host_f32(&s, o_count);
    n.kept = ops_host_f32(&s, o_count);
    n.lse = ops_host_f32(&s, B * H * Tq);
    attention_objective(&n);
    check_attention_forward(&n);
    dev->ops->attention_backward(dev, (bb_qkv_gradient){dq, d_kv, d_kv + Hk * D}, n.c, (bb_qkv){n.q, n.k, n.v}, n.kept, n.lse,
                                 &n.a);
    assert_gradient(attention_objective, &n, n.q, dq, q_count, "dq"); /* 0 in the gaps, both */
    assert_gradient(attention_objective, &n, kv, d_kv, kv_count, "dk, dv");
    ops_end(&s);
}

static void attention_and_its_gradient(void **state) {
    (void)state;
    check_attention(1, 1, 1, 1, 1, 2);
    check_attention(2, 5, 5, 2, 2, 4);
    check_attention(1, 6, 6, 6, 2, 4);
    check_attention(2, 3, 7, 4, 1, 6);
}

static void attention_needs_no_lse(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 6);
    bb_attention a = {1, 4, 4, 1, 1, 8, 8, 8, 32, 8};
    float *q = ops_normal(&s, 32, 30.0), *o = ops_host_f32(&s, 32), *again = ops_host_f32(&s, 32), lse[4];
    dev->ops->attention_forward(dev, o, NULL, lse, (bb_qkv){q, q, q}, &a);
    dev->ops->attention_forward(dev, again, NULL, NULL, (bb_qkv){q, q, q}, &a);
    assert_memory_equal(o, again, 32 * sizeof *o);
    for (int i = 0; i < 32; i++) assert_true(isfinite(o[i])); /* scores in the thousands */
    ops_end(&s);
}

/* -- embedding, head, loss ------------------------------------------------------------------------------------------------ */

static void embedding_gathers_and_scatters(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 7);
    enum { M = 9, V = 256, C = 5 };
    uint8_t idx[M] = {0, 255, 7, 7, 3, 7, 0, 128, 255};
    float *e = ops_normal_f32(&s, V * C, 1.0), *x = ops_host_f32(&s, M * C), *dx = ops_normal_f32(&s, M * C, 1.0);
    float *de = ops_normal_f32(&s, V * C, 1.0), *before = ops_host_f32(&s, V * C);
    memcpy(before, de, V * C * sizeof *de);
    dev->ops->embedding_forward(dev, x, idx, e, M, V, C);
    dev->ops->embedding_backward(dev, de, idx, dx, M, V, C);
    for (int m = 0; m < M; m++) assert_memory_equal(x + m * C, e + idx[m] * C, C * sizeof *x);
    for (int v = 0; v < V; v++)
        for (int c = 0; c < C; c++) {
            double expected = (double)before[v * C + c];
            for (int m = 0; m < M; m++) expected += idx[m] == v ? (double)dx[m * C + c] : 0;
            ops_assert_near((double)de[v * C + c], expected, 1e-6, "dE", v * C + c);
        }
    ops_end(&s);
}

typedef struct head_case {
    int64_t M, V, C;
    float *h, *e, *logits, *c;
} head_case;

static double head_objective(void *context) {
    head_case *n = context;
    dev->ops->head_forward(dev, n->logits, n->h, &(bb_head){n->e, n->M, n->V, n->C});
    return dot(n->logits, n->c, n->M * n->V);
}

static void head_and_its_gradient(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 8);
    enum { M = 3, V = 10, C = 7 };
    head_case n = {.M = M, .V = V, .C = C, .h = ops_normal(&s, M * C, 1.0), .e = ops_normal(&s, V * C, 1.0)};
    n.c = ops_normal(&s, M * V, 1.0);
    n.logits = ops_host_f32(&s, M * V);
    head_objective(&n);
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++)
            ops_assert_near((double)n.logits[m * V + v], dot(n.h + m * C, n.e + v * C, C), 1e-6, "logits", m * V + v);
    float *dh = ops_host_f32(&s, M * C), *de = ops_normal(&s, V * C, 1.0), *before = ops_host_f32(&s, V * C);
    memcpy(before, de, V * C * sizeof *de);
    dev->ops->head_backward(dev, dh, de, n.c, n.h, &(bb_head){n.e, M, V, C});
    for (int i = 0; i < V * C; i++) de[i] -= before[i];
    assert_gradient(head_objective, &n, n.h, dh, M * C, "head dh");
    assert_gradient(head_objective, &n, n.e, de, V * C, "head dE");
    ops_end(&s);
}

typedef struct loss_case {
    int64_t M, V;
    float *logits, *nll;
    uint8_t *y;
} loss_case;

static double loss_objective(void *context) {
    loss_case *n = context;
    double sum = 0;
    dev->ops->loss_forward(dev, n->nll, n->logits, n->y, n->M, n->V);
    for (int64_t m = 0; m < n->M; m++) sum += (double)n->nll[m];
    return 0.5 * sum;
}

static void loss_and_its_gradient(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 9);
    enum { M = 4, V = 13 };
    loss_case n = {.M = M, .V = V, .logits = ops_normal(&s, M * V, 2.0), .y = ops_bytes(&s, M, V)};
    n.nll = ops_host_f32(&s, M);
    loss_objective(&n);
    for (int m = 0; m < M; m++) {
        double sum = 0;
        for (int v = 0; v < V; v++) sum += exp((double)n.logits[m * V + v]);
        ops_assert_near((double)n.nll[m], log(sum) - (double)n.logits[m * V + n.y[m]], 1e-6, "nll", m);
    }
    float *d = ops_host_f32(&s, M * V);
    dev->ops->loss_backward(dev, d, n.logits, n.y, 0.5f, M, V);
    assert_gradient(loss_objective, &n, n.logits, d, M * V, "dlogits");
    dev->ops->loss_backward(dev, n.logits, n.logits, n.y, 0.5f, M, V); /* in place */
    assert_memory_equal(n.logits, d, M * V * sizeof *d);
    ops_end(&s);
}

static void loss_of_extreme_logits(void **state) {
    (void)state;
    float logits[3][4] = {{1e4f, -1e4f, 0, 0}, {1e4f, -1e4f, 0, 0}, {0, NAN, 0, 0}}, nll[3], d[3][4];
    const uint8_t y[3] = {0, 1, 0};
    dev->ops->loss_forward(dev, nll, &logits[0][0], y, 3, 4);
    dev->ops->loss_backward(dev, &d[0][0], &logits[0][0], y, 1.0f, 2, 4);
    assert_float_equal(nll[0], 0.0f, 0.0f);
    assert_float_equal(nll[1], 2e4f, 0.0f);
    assert_true(isnan(nll[2])); /* a loss that is not a number must be seen */
    const float expected[2][4] = {{0, 0, 0, 0}, {1, -1, 0, 0}};
    for (int i = 0; i < 8; i++) assert_float_equal(d[i / 4][i % 4], expected[i / 4][i % 4], 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(act_quant_rounds_half_to_even),
        cmocka_unit_test(act_quant_of_small_rows),
        cmocka_unit_test(act_quant_uses_the_whole_range_and_no_more),
        cmocka_unit_test(act_quant_copies_where_not_quantized),
        cmocka_unit_test(ternary_quant_follows_its_rule),
        cmocka_unit_test(ste_clip_zeroes_above_the_scale),
        cmocka_unit_test(linear_follows_its_formulas),
        cmocka_unit_test(rmsnorm_and_its_gradient),
        cmocka_unit_test(fused_quantization_equals_two_steps),
        cmocka_unit_test(swiglu_and_its_gradient),
        cmocka_unit_test(rope_turns_and_turns_back),
        cmocka_unit_test(attention_and_its_gradient),
        cmocka_unit_test(attention_needs_no_lse),
        cmocka_unit_test(embedding_gathers_and_scatters),
        cmocka_unit_test(head_and_its_gradient),
        cmocka_unit_test(loss_and_its_gradient),
        cmocka_unit_test(loss_of_extreme_logits),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
