// SPDX-License-Identifier: MIT
/* Ternary linear layers and the head, cpu compared with ref. Integer results must be exact; other elements have a bound:
 * roundings times the sum of the magnitudes of the terms. */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "ops_compare.h"

static double *bounds(ops_session *s, int64_t n) { return ops_host(s, (size_t)n * sizeof(double)); }

/* Returns |w| of the ternary matrix, scale included: (N,K) */
static double *weight_sizes(ops_session *s, const bb_ternary *t) {
    int8_t *q = ops_room(s, (size_t)(t->n * t->k));
    s->dev->ops->ternary_unpack(s->dev, q, t);
    const int8_t *host_q = ops_get(s, q, (size_t)(t->n * t->k));
    const float *scale = ops_get_f32(s, t->scale, t->segments);
    double *size = bounds(s, t->n * t->k);
    for (int64_t n = 0, segment = 0; n < t->n; n++) {
        if (n == t->segment_end[segment]) segment++;
        for (int64_t i = n * t->k; i < (n + 1) * t->k; i++) size[i] = (double)scale[segment] * abs(host_q[i]);
    }
    return size;
}

enum { PLAIN, FIRST_TRANSPOSED, SECOND_TRANSPOSED };

/* out[m,n] = sum_k a[m,k] b[k,n], a or b given transposed. */
static double *product_sizes(ops_session *s, const double *a, const double *b, int64_t M, int64_t N, int64_t K, int how) {
    double *out = bounds(s, M * N);
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < K; k++) {
            double am = a[how == FIRST_TRANSPOSED ? k * M + m : m * K + k];
            int64_t first = how == SECOND_TRANSPOSED ? k : k * N, step = how == SECOND_TRANSPOSED ? K : 1;
            for (int64_t n = 0; n < N; n++) out[m * N + n] += am * b[first + n * step];
        }
    return out;
}

static double *sizes(ops_session *s, const float *x, int64_t n) {
    double *size = bounds(s, n);
    for (int64_t i = 0; i < n; i++) size[i] = fabs((double)x[i]);
    return size;
}

/* Codes over the whole range, scales the powers of two from 1/8 to 8. */
static bb_rows coded_rows(ops_session *s, int64_t M, int64_t K) {
    int8_t *q = ops_host(s, (size_t)(M * K));
    float *scale = ops_host_f32(s, M);
    const uint8_t *drawn = ops_bytes(s, M * K, 255);
    for (int64_t i = 0; i < M * K; i++) q[i] = (int8_t)(drawn[i] - 127);
    for (int64_t m = 0; m < M; m++) scale[m] = ldexpf(1.0f, (int)(m % 7) - 3);
    return (bb_rows){.data = ops_put(s, q, (size_t)(M * K)), .scale = ops_put_f32(s, scale, M), .dtype = BB_I8};
}

/* N, K, segments: the codes exactly, the scales within one unit in the last place (of f32: the
 * mean is taken in double) */
static void ternary(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1];
    bb_ternary t = ops_ternary(s, N, K, (int)d[2], ops_normal_f32(s, N * K, 0.05));
    int8_t *q = ops_room(s, (size_t)(N * K));
    s->dev->ops->ternary_unpack(s->dev, q, &t);
    const int8_t *host_q = ops_get(s, q, (size_t)(N * K));
    float *codes = ops_host_f32(s, N * K);
    for (int64_t i = 0; i < N * K; i++) codes[i] = (float)host_q[i];
    ops_out(out, "q", codes, N * K, 0, NULL);
    ops_out(out, "scale", ops_get_f32(s, t.scale, d[2]), d[2], 2 * U_F32, NULL);
}

/* Loads each segment on its own, as from a model file, and returns what the device keeps of them. */
static const uint8_t *load_codes(ops_session *s, const bb_ternary *t, const uint8_t *codes) {
    int64_t row_bytes = (t->k + 3) / 4;
    for (int i = 0; i < t->segments; i++) {
        bb_ternary segment = bb_ternary_segment(s->dev, t, i);
        int64_t first = t->segment_end[i] - segment.n;
        s->dev->ops->ternary_load(s->dev, &segment, ops_put(s, codes + first * row_bytes, (size_t)(segment.n * row_bytes)));
    }
    return ops_get(s, t->data, s->dev->ops->ternary_bytes(s->dev, t));
}

/* N, K, segments: a matrix from codes. Bits past K are ones, which are no code. A device whose layout is the file's, such as ref,
 * may keep them. cpu must not: in the dense layout they would carry into the codes of other columns. */
static void ternary_load(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1], row_bytes = (K + 3) / 4;
    bb_ternary t = ops_ternary(s, N, K, (int)d[2], ops_normal_f32(s, N * K, 0.05));
    uint8_t *codes = ops_host(s, (size_t)(N * row_bytes)), *clean = ops_host(s, (size_t)(N * row_bytes));
    const uint8_t *drawn = ops_bytes(s, N * row_bytes * 4, 3);
    for (int64_t i = 0; i < N * row_bytes * 4; i++) {
        bool padding = i % (row_bytes * 4) >= K;
        codes[i / 4] |= (uint8_t)((padding ? 3 : drawn[i]) << i % 4 * 2);
        clean[i / 4] |= (uint8_t)((padding ? 0 : drawn[i]) << i % 4 * 2);
    }
    const uint8_t *want = load_codes(s, &t, clean), *loaded = load_codes(s, &t, codes);
    if (strcmp(bb_device_name(s->dev), "cpu") == 0) assert_memory_equal(loaded, want, s->dev->ops->ternary_bytes(s->dev, &t));
    int8_t *q = ops_room(s, (size_t)(N * K));
    s->dev->ops->ternary_unpack(s->dev, q, &t);
    const int8_t *host_q = ops_get(s, q, (size_t)(N * K));
    float *values = ops_host_f32(s, N * K);
    for (int64_t i = 0; i < N * K; i++) {
        values[i] = (float)host_q[i];
        assert_int_equal(host_q[i] + 1, drawn[i / K * row_bytes * 4 + i % K]);
    }
    ops_out(out, "q", values, N * K, 0, NULL);
}

/* Weights that are ties, at the clip, zero, and tensors of zeros alone; segments 3. */
static void ternary_edges(ops_session *s, const int64_t *d, ops_outputs *out) {
    static const float pattern[8] = {0.5f, -0.5f, 1.5f, -1.5f, 0.0f, 2.0f, -1.0f, 1.0f}; /* mean magnitude 1 */
    int64_t N = 4, K = d[0];
    float *w = ops_host_f32(s, N * K); /* rows 0, 1 | 2 | 3 */
    for (int64_t i = 0; i < N * K; i++) w[i] = i / K == 2 ? 0.0f : i / K == 3 ? pattern[i % 8] * 1e-9f : pattern[i % 8];
    bb_ternary t = ops_ternary(s, N, K, 3, w);
    int8_t *q = ops_room(s, (size_t)(N * K));
    s->dev->ops->ternary_unpack(s->dev, q, &t);
    const int8_t *host_q = ops_get(s, q, (size_t)(N * K));
    float *codes = ops_host_f32(s, N * K), *dw = ops_put_f32(s, ops_normal_f32(s, N * K, 1.0), N * K);
    for (int64_t i = 0; i < N * K; i++) codes[i] = (float)host_q[i];
    s->dev->ops->ste_clip(s->dev, dw, ops_put_f32(s, w, N * K), &t);
    ops_out(out, "q", codes, N * K, 0, NULL);
    ops_out(out, "scale", ops_get_f32(s, t.scale, 3), 3, 0, NULL);
    ops_out(out, "dw", ops_get_f32(s, dw, N * K), N * K, 0, NULL);
}

/* N, K, segments */
static void ste_clip(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1];
    float *w = ops_normal_f32(s, N * K, 0.05), *dw = ops_put_f32(s, ops_normal_f32(s, N * K, 1.0), N * K);
    bb_ternary t = ops_ternary(s, N, K, (int)d[2], w);
    s->dev->ops->ste_clip(s->dev, dw, ops_put_f32(s, w, N * K), &t);
    ops_out(out, "dw", ops_get_f32(s, dw, N * K), N * K, 0, NULL);
}

/* Weights whose scales are powers of two, exactly: of each two, one is 1.75 and the other 0.25 of the scale, of either sign. */
static float *weights_of_exact_scale(ops_session *s, int64_t N, int64_t K, int segments) {
    static const float scales[BB_MAX_SEGMENTS] = {1.0f, 0.5f, 4.0f};
    float *w = ops_host_f32(s, N * K);
    const uint8_t *drawn = ops_bytes(s, N * K, 256);
    for (int64_t i = 0, first = 0, segment = 0; i < N * K; i++) {
        int64_t end = ops_segment_end(N, segments, (int)segment) * K, pair = first + (i - first) / 2 * 2;
        float part = pair + 1 == end ? 1.0f : (i == pair) == (drawn[pair] >= 128) ? 1.75f : 0.25f;
        w[i] = scales[segment] * (drawn[i] & 1 ? part : -part);
        if (i + 1 == end) {
            first = end;
            segment++;
        }
    }
    return w;
}

/* M, N, K, segments: with scales that are powers of two and whole residuals nothing is rounded but what is stored, so
 * that every bit of the int32 sums shows. */
static void linear_exact(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], N = d[1], K = d[2];
    bb_ternary t = ops_ternary(s, N, K, (int)d[3], weights_of_exact_scale(s, N, K, (int)d[3]));
    bb_rows x = coded_rows(s, M, K);
    float *residual = ops_host_f32(s, M * N);
    for (int64_t i = 0; i < M * N; i++) residual[i] = (float)(i % 201 - 100);
    float *y = ops_put_f32(s, residual, M * N), *sum = ops_put_f32(s, residual, M * N);
    float *elsewhere = ops_room(s, (size_t)(M * N) * sizeof *elsewhere);
    s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
    s->dev->ops->linear_forward(s->dev, elsewhere, sum, x, &t, M);
    s->dev->ops->linear_forward(s->dev, sum, sum, x, &t, M);
    ops_out(out, "g", ops_get_f32(s, t.scale, d[3]), d[3], 0, NULL);
    ops_out(out, "y", ops_get_f32(s, y, M * N), M * N, 0, NULL);
    ops_out(out, "y + residual", ops_get_f32(s, elsewhere, M * N), M * N, 0, NULL);
    ops_out(out, "y + residual, in place", ops_get_f32(s, sum, M * N), M * N, 0, NULL);
}

/* M, K: the largest sums that there are, of either sign, in rows of a batch; each row then once more on its own. */
static void linear_extreme(ops_session *s, const int64_t *d, ops_outputs *out) {
    enum { N = 65 };
    int64_t M = d[0], K = d[1];
    float *w = ops_host_f32(s, N * K), *scale = ops_host_f32(s, M);
    int8_t *q = ops_host(s, (size_t)(M * K));
    for (int64_t i = 0; i < N * K; i++) w[i] = i / K % 2 ? -1.0f : 1.0f;
    for (int64_t i = 0; i < M * K; i++) q[i] = i / K % 3 == 0 ? 127 : i / K % 3 == 1 ? -127 : (int8_t)(i % 3 - 1);
    for (int64_t m = 0; m < M; m++) scale[m] = 0.125f;
    bb_ternary t = ops_ternary(s, N, K, 1, w);
    bb_rows x = {.data = ops_put(s, q, (size_t)(M * K)), .scale = ops_put_f32(s, scale, M), .dtype = BB_I8};
    float *y = ops_room(s, (size_t)(M * N) * sizeof *y), *alone = ops_room(s, (size_t)(M * N) * sizeof *alone);
    s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
    for (int64_t m = 0; m < M; m++) {
        bb_rows row = {.data = (int8_t *)x.data + m * K, .scale = x.scale + m, .dtype = BB_I8};
        s->dev->ops->linear_forward(s->dev, alone + m * N, NULL, row, &t, 1);
    }
    ops_out(out, "y", ops_get_f32(s, y, M * N), M * N, 0, NULL);
    ops_out(out, "row by row", ops_get_f32(s, alone, M * N), M * N, 0, NULL);
}

/* M, N, K, segments: with the scales that the quantizers give, three f32 products. */
static void linear_quantized(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], N = d[1], K = d[2];
    bb_ternary t = ops_ternary(s, N, K, (int)d[3], ops_normal_f32(s, N * K, 0.05));
    bb_rows x = ops_rows(s, M, K, BB_I8);
    float *residual0 = ops_normal_f32(s, M * N, 1.0), *residual = ops_put_f32(s, residual0, M * N);
    float *y = ops_put_f32(s, residual0, M * N), *sum = ops_room(s, (size_t)(M * N) * sizeof *sum);
    s->dev->ops->act_quant(s->dev, x, ops_put_f32(s, ops_normal_f32(s, M * K, 1.0), M * K), M, K);
    s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
    s->dev->ops->linear_forward(s->dev, sum, residual, x, &t, M);
    const float *host_sum = ops_get_f32(s, sum, M * N);
    double *bound = bounds(s, M * N);
    for (int64_t i = 0; i < M * N; i++) bound[i] = 6 * U_F32 * (2 * fabs((double)residual0[i]) + fabs((double)host_sum[i]));
    ops_out(out, "y", ops_get_f32(s, y, M * N), M * N, 6 * U_F32, NULL);
    ops_out(out, "y + residual", host_sum, M * N, 0, bound);
}

/* M, N, K, segments, x in f32: activations as they are; an f32 sum of K. */
static void linear_unquantized(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], N = d[1], K = d[2];
    float *x0 = d[4] ? ops_normal_f32(s, M * K, 1.0) : ops_normal(s, M * K, 1.0), *residual0 = ops_normal_f32(s, M * N, 1.0);
    bb_ternary t = ops_ternary(s, N, K, (int)d[3], ops_normal_f32(s, N * K, 0.05));
    bb_rows x = {.data = d[4] ? ops_put_f32(s, x0, M * K) : ops_put_act(s, x0, M * K),
                 .dtype = d[4] ? BB_F32 : s->dev->ops->act_dtype};
    float *y = ops_put_f32(s, residual0, M * N), *sum = ops_room(s, (size_t)(M * N) * sizeof *sum);
    s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
    s->dev->ops->linear_forward(s->dev, sum, ops_put_f32(s, residual0, M * N), x, &t, M);
    double *bound = NULL, *sum_bound = NULL;
    if (ops_is_ref(s)) {
        bound = product_sizes(s, sizes(s, x0, M * K), weight_sizes(s, &t), M, N, K, SECOND_TRANSPOSED);
        sum_bound = bounds(s, M * N);
        for (int64_t i = 0; i < M * N; i++) {
            bound[i] *= (double)(K + 6) * U_F32;
            sum_bound[i] = bound[i] + 2 * U_F32 * fabs((double)residual0[i]);
        }
    }
    ops_out(out, "y", ops_get_f32(s, y, M * N), M * N, 2 * U_F32, bound);
    ops_out(out, "y + residual", ops_get_f32(s, sum, M * N), M * N, 2 * U_F32, sum_bound);
}

/* In the layout for forward products alone, where the device has one. */
#define DENSE(body)                                                                                                            \
    static void body##_dense(ops_session *s, const int64_t *d, ops_outputs *out) {                                             \
        s->dense = true;                                                                                                       \
        body(s, d, out);                                                                                                       \
    }
DENSE(ternary)
DENSE(ternary_load)
DENSE(linear_exact)
DENSE(linear_extreme)
DENSE(linear_unquantized)

/* A gradient, whose terms had two or three random roundings, none of them whole, and errors of norm `quantized` by int8; those
 * of few values may add up to more than expected. */
static void out_by_norm(ops_outputs *out, const char *name, const float *x, int64_t n, double relative, const double *bound,
                        double quantized) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    ops_out(out, name, x, n, relative, bound);
    out->of[out->count - 1].by_norm = 2 * U_ACT + (quantized > 0 ? 1.5 * quantized / sqrt(squares) : 0);
}

enum { X_ACT, X_I8, X_F32 };

/* Adds to bound (M,K) what rounding each row of dy * g to steps of its largest / 127 can do, half a step for each q that is not
 * 0, and returns the norm to expect of all that: such errors are spread evenly over a step. */
static double quantized_dy_bounds(double *bound, const double *dy_sizes, const double *weights, const bb_ternary *t,
                                  const float *scale, int64_t M) {
    int64_t N = t->n, K = t->k;
    double squares = 0;
    for (int64_t m = 0; m < M; m++) {
        double most = 0;
        for (int64_t n = 0, segment = 0; n < N; n++) {
            if (n == t->segment_end[segment]) segment++;
            most = fmax(most, dy_sizes[m * N + n] * (double)scale[segment]);
        }
        double step = most / 127;
        for (int64_t n = 0; n < N; n++)
            for (int64_t k = 0; k < K; k++)
                if (weights[n * K + k] > 0) {
                    bound[m * K + k] += step / 2;
                    squares += step * step / 12;
                }
    }
    return sqrt(squares);
}

/* The same for dw (N,K): each column of dy * s, rounded to steps of its largest / 127 of all rows or of fewer. */
static double quantized_columns_bounds(ops_session *s, double *bound, const double *dy_sizes, bb_rows x, int64_t M, int64_t N,
                                       int64_t K) {
    const int8_t *q = ops_get(s, x.data, (size_t)(M * K));
    const float *scale = ops_get_f32(s, x.scale, M);
    double squares = 0;
    for (int64_t n = 0; n < N; n++) {
        double most = 0;
        for (int64_t m = 0; m < M; m++) most = fmax(most, dy_sizes[m * N + n] * (double)scale[m]);
        double step = 1.01 * most / 127; /* dy itself may have been rounded to bf16 */
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) {
                bound[n * K + k] += step / 2 * abs(q[m * K + k]);
                squares += step * step / 12 * q[m * K + k] * q[m * K + k];
            }
    }
    return sqrt(squares);
}

/* M, N, K, segments, x, dy in f32, without dx, dw overwritten. dy takes a scale (g for dx, s for dw) and becomes an activation: one
 * rounding a term, two where it was f32, one more where x was; products are exact, sums in f32. With x in int8, dy may become
 * int8 instead, for dx by rows and for dw by columns.
 */
static void linear_backward(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], N = d[1], K = d[2];
    float *x0 = d[4] == X_F32 ? ops_normal_f32(s, M * K, 1.0) : ops_normal(s, M * K, 1.0);
    float *dy0 = d[5] ? ops_normal_f32(s, M * N, 1.0) : ops_normal(s, M * N, 1.0);
    float *dw0 = ops_normal_f32(s, N * K, 1.0), *dw = ops_put_f32(s, dw0, N * K);
    bb_ternary t = ops_ternary(s, N, K, (int)d[3], ops_normal_f32(s, N * K, 0.05));
    bb_rows x = ops_rows(s, M, K, d[4] == X_I8 ? BB_I8 : d[4] == X_F32 ? BB_F32 : s->dev->ops->act_dtype);
    s->dev->ops->act_quant(s->dev, x, ops_put_f32(s, x0, M * K), M, K);
    void *dx = d[6] ? NULL : ops_put_act(s, x0, M * K), *dy = d[5] ? ops_put_f32(s, dy0, M * N) : ops_put_act(s, dy0, M * N);
    s->dev->ops->linear_backward(s->dev, dx, (bb_layer_gradient){dy, d[5] ? BB_F32 : s->dev->ops->act_dtype, dw, !d[7]}, x, &t,
                                 M);

    double *dx_bound = NULL, *dw_bound = NULL, *dy_sizes = sizes(s, dy0, M * N), dx_norm = 0, dw_norm = 0;
    if (ops_is_ref(s)) {
        /* a quantized x is at most half a step from x; sizes need no more */
        dw_bound = product_sizes(s, dy_sizes, sizes(s, x0, M * K), N, K, M, FIRST_TRANSPOSED);
        dx_bound = product_sizes(s, dy_sizes, weight_sizes(s, &t), M, K, N, PLAIN);
        for (int64_t i = 0; i < N * K; i++)
            dw_bound[i] =
                (1.02 * ((d[4] == X_F32 ? 3 : 2) * U_ACT + (double)M * U_F32)) * dw_bound[i] + 4 * U_F32 * fabs((double)dw0[i]);
        /* below the smallest normal activation: dy times a scale, beside an x of up to 127 */
        for (int64_t i = 0; i < N * K; i++) dw_bound[i] += 127 * (double)M * TINY_ACT;
        for (int64_t i = 0; i < M * K; i++)
            dx_bound[i] = dx_bound[i] * (2 * U_ACT + (double)N * U_F32) + (double)(N + 1) * TINY_ACT;
        if (d[4] == X_I8) {
            dx_norm = quantized_dy_bounds(dx_bound, dy_sizes, weight_sizes(s, &t), &t, ops_get_f32(s, t.scale, t.segments), M);
            dw_norm = quantized_columns_bounds(s, dw_bound, dy_sizes, x, M, N, K);
        }
    }
    out_by_norm(out, "dw", ops_get_f32(s, dw, N * K), N * K, 2 * U_F32, dw_bound, dw_norm);
    if (!d[6]) out_by_norm(out, "dx", ops_get_act(s, dx, M * K), M * K, U_ACT * (1 + U_ACT), dx_bound, dx_norm);
}

/* M, V, C: forward in f32 throughout; dh is stored as an activation. */
static void head(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], V = d[1], C = d[2];
    float *h0 = ops_normal_f32(s, M * C, 1.0), *e0 = ops_normal_f32(s, V * C, 0.2), *dlogits0 = ops_normal_f32(s, M * V, 1.0);
    float *de0 = ops_normal_f32(s, V * C, 1.0), *h = ops_put_f32(s, h0, M * C), *e = ops_put_f32(s, e0, V * C);
    float *logits = ops_room(s, (size_t)(M * V) * sizeof *logits), *de = ops_put_f32(s, de0, V * C);
    void *dh = ops_put_act(s, h0, M * C);
    s->dev->ops->head_forward(s->dev, logits, h, &(bb_head){e, M, V, C});
    s->dev->ops->head_backward(s->dev, dh, de, ops_put_f32(s, dlogits0, M * V), h, &(bb_head){e, M, V, C});
    double *bound = NULL, *dh_bound = NULL, *de_bound = NULL;
    if (ops_is_ref(s)) {
        double *h_sizes = sizes(s, h0, M * C), *e_sizes = sizes(s, e0, V * C), *d_sizes = sizes(s, dlogits0, M * V);
        bound = product_sizes(s, h_sizes, e_sizes, M, V, C, SECOND_TRANSPOSED);
        dh_bound = product_sizes(s, d_sizes, e_sizes, M, C, V, PLAIN);
        de_bound = product_sizes(s, d_sizes, h_sizes, V, C, M, FIRST_TRANSPOSED);
        for (int64_t i = 0; i < M * V; i++) bound[i] *= (double)(C + 2) * U_F32;
        for (int64_t i = 0; i < M * C; i++) dh_bound[i] *= (double)(V + 2) * U_F32;
        for (int64_t i = 0; i < V * C; i++) de_bound[i] = (double)(M + 2) * U_F32 * (de_bound[i] + fabs((double)de0[i]));
    }
    ops_out(out, "logits", ops_get_f32(s, logits, M * V), M * V, U_F32, bound);
    ops_out_act(s, out, "dh", dh, M * C, U_ACT * (1 + U_ACT), dh_bound);
    ops_out(out, "de", ops_get_f32(s, de, V * C), V * C, 2 * U_F32, de_bound);
}

/* Rows of dy, for dx, and columns, for dw, that have no scale: of zeros (exactly zero), too small for a finite one (finite),
 * not numbers (they stay so); beside ordinary ones. On cpu alone: what tiny values give is a backend's own. */
static void rows_without_scale(void **state) {
    (void)state;
    enum { M = 4, N = 70, K = 90, NOT_A_NUMBER = 7, ZEROS = 9, TINY = 11 };
    if (strcmp(ops_tested_name, "cpu") != 0) skip();
    for (int f32 = 0; f32 < 2; f32++) {
        ops_session session = ops_begin(ops_tested[1], 1), *s = &session;
        float *dy0 = ops_normal(s, (int64_t)M * N, 1.0), *dw = ops_put_f32(s, ops_host_f32(s, (int64_t)N * K), (int64_t)N * K);
        for (int i = 0; i < N; i++) {
            dy0[i] = 0;
            dy0[N + i] = i % 2 ? 1e-38f : -3e-39f;
        }
        for (int m = 0; m < M; m++) {
            dy0[m * N + ZEROS] = 0;
            dy0[m * N + TINY] = m % 2 ? 1e-38f : -3e-39f;
        }
        dy0[2 * N + NOT_A_NUMBER] = NAN;
        bb_ternary t = ops_ternary(s, N, K, 2, ops_normal_f32(s, (int64_t)N * K, 0.05));
        bb_rows x = ops_rows(s, M, K, BB_I8);
        s->dev->ops->act_quant(s->dev, x, ops_put_f32(s, ops_normal_f32(s, (int64_t)M * K, 1.0), (int64_t)M * K), M, K);
        void *dx = ops_put_act(s, ops_normal(s, (int64_t)M * K, 1.0), (int64_t)M * K);
        void *dy = f32 ? ops_put_f32(s, dy0, (int64_t)M * N) : ops_put_act(s, dy0, (int64_t)M * N);
        s->dev->ops->linear_backward(s->dev, dx, (bb_layer_gradient){dy, f32 ? BB_F32 : s->dev->ops->act_dtype, dw, true}, x,
                                     &t, M);
        const float *result = ops_get_act(s, dx, (int64_t)M * K);
        bool any = false;
        for (int k = 0; k < K; k++) {
            assert_true(result[k] == 0);
            assert_true(fabsf(result[K + k]) < 1e-35f);
            assert_true(isnan(result[2 * K + k]));
            assert_true(isfinite(result[3 * K + k]));
            any = any || result[3 * K + k] != 0;
        }
        assert_true(any);
        const float *sums = ops_get_f32(s, dw, (int64_t)N * K);
        for (int i = 0; i < N * K; i++) {
            int n = i / K;
            assert_true(n == NOT_A_NUMBER ? isnan(sums[i]) : isfinite(sums[i]));
            assert_true(n != ZEROS || sums[i] == 0);
            assert_true(n != TINY || fabsf(sums[i]) < 1e-35f);
        }
        ops_end(s);
    }
}

static pthread_t signalled;
static const char *stack_low, *stack_high; /* its stack */
static volatile sig_atomic_t ticks, ticks_elsewhere;

static void on_tick(int number) {
    (void)number;
    volatile char here = 0;
    if (!pthread_equal(pthread_self(), signalled)) return; /* waiting threads of OpenMP get some */
    ticks++;
    if ((const char *)&here < stack_low || (const char *)&here >= stack_high) ticks_elsewhere++;
}

/* A signal handler is called on the thread's own stack, whatever a product does with the stack pointer. */
static void signals_meet_the_stack(void **state) {
    (void)state;
    enum { M = 96, V = 256, C = 512, TICKS = 100 };
    if (ops_emulated()) skip(); /* whose threads have stacks of their own */
    ops_session session = ops_begin(ops_tested[0], 1), *s = &session;
    float *h = ops_put_f32(s, ops_normal_f32(s, (int64_t)M * C, 1.0), (int64_t)M * C);
    float *e = ops_put_f32(s, ops_normal_f32(s, (int64_t)V * C, 1.0), (int64_t)V * C);
    float *logits = ops_room(s, (size_t)M * V * sizeof *logits);
    pthread_attr_t attributes;
    void *low;
    size_t size;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &low, &size), 0);
    pthread_attr_destroy(&attributes);
    signalled = pthread_self();
    stack_low = low;
    stack_high = stack_low + size;
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval each = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &each, NULL), 0);
    while (ticks < TICKS) s->dev->ops->head_forward(s->dev, logits, h, &(bb_head){e, M, V, C});
    assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
    action.sa_handler = SIG_IGN; /* a last tick may be under way */
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    ops_end(s);
    assert_int_equal(ticks_elsewhere, 0);
}

/* What a processor keeps in registers of its own for a product (AMX's tiles) outlives a signal. */
static void signals_leave_products_as_they_are(void **state) {
    (void)state;
    enum { M = 90, N = 200, K = 700, TICKS = 50 };
    ops_session session = ops_begin(ops_tested[1], 1), *s = &session;
    bb_ternary t = ops_ternary(s, N, K, 1, ops_normal_f32(s, (int64_t)N * K, 0.05));
    bb_rows x = ops_rows(s, M, K, BB_I8);
    s->dev->ops->act_quant(s->dev, x, ops_put_f32(s, ops_normal_f32(s, (int64_t)M * K, 1.0), (int64_t)M * K), M, K);
    float *y = ops_room(s, (size_t)M * N * sizeof *y);
    s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
    const float *undisturbed = ops_get_f32(s, y, (int64_t)M * N);
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval each = {{0, 200}, {0, 200}}, off = {{0, 0}, {0, 0}};
    signalled = pthread_self();
    ticks = 0;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &each, NULL), 0);
    bool same = true;
    float *disturbed = ops_host_f32(s, (int64_t)M * N);
    while (ticks < TICKS) {
        s->dev->ops->linear_forward(s->dev, y, NULL, x, &t, M);
        s->dev->ops->copy_out(s->dev, disturbed, y, (size_t)M * N * sizeof *y);
        for (int i = 0; same && i < M * N; i++) same = ops_bits(disturbed[i]) == ops_bits(undisturbed[i]);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
    action.sa_handler = SIG_IGN; /* a last tick may be under way */
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    ops_end(s);
    assert_true(same);
}

static const ops_case cases[] = {
    {"ternary", ternary, {1, 1, 1}},
    {"ternary", ternary, {5, 7, 3}},
    {"ternary", ternary, {64, 64, 1}},
    {"ternary", ternary, {96, 33, 2}},
    {"ternary", ternary, {130, 257, 3}},
    {"ternary", ternary, {333, 500, 3}},
    {"ternary_load", ternary_load, {1, 1, 1}},
    {"ternary_load", ternary_load, {5, 7, 3}},
    {"ternary_load", ternary_load, {64, 64, 1}},
    {"ternary_load", ternary_load, {130, 257, 3}},
    {"ternary_load", ternary_load, {333, 500, 3}},
    {"ternary_edges", ternary_edges, {8}},
    {"ternary_edges", ternary_edges, {72}},
    {"ste_clip", ste_clip, {5, 7, 3}},
    {"ste_clip", ste_clip, {200, 130, 3}},
    {"linear_exact", linear_exact, {1, 1, 1, 1}},
    {"linear_exact", linear_exact, {1, 5, 1536, 3}},
    {"linear_exact", linear_exact, {3, 9, 20, 1}},
    {"linear_exact", linear_exact, {1, 260, 333, 3}},
    {"linear_exact", linear_exact, {2, 31, 65, 2}},
    {"linear_exact", linear_exact, {5, 64, 64, 1}},
    {"linear_exact", linear_exact, {17, 48, 100, 3}},
    {"linear_exact", linear_exact, {64, 128, 96, 1}},
    {"linear_exact", linear_exact, {65, 192, 128, 3}},
    {"linear_exact", linear_exact, {130, 129, 127, 2}},
    {"linear_exact", linear_exact, {300, 80, 520, 3}},
    {"linear_exact", linear_exact, {1, 700, 40, 3}},
    {"linear_exact", linear_exact, {48, 33, 449, 2}},
    {"linear_exact", linear_exact, {79, 96, 64, 1}},
    {"linear_exact", linear_exact, {112, 97, 191, 3}},
    {"linear_exact", linear_exact, {70, 1030, 24, 2}},
    {"linear_exact", linear_exact, {1, 64, 4096, 1}},
    {"linear_exact", linear_exact, {4, 200, 1030, 3}},
    {"linear_exact", linear_exact, {6, 130, 2000, 2}},
    {"linear_exact, large", linear_exact, {1501, 2112, 20, 3}}, /* more than the caches of a core hold */
    {"linear_extreme", linear_extreme, {7, 4100}},
    {"linear_extreme", linear_extreme, {23, 4100}},
    {"linear_quantized", linear_quantized, {1, 512, 256, 3}},
    {"linear_quantized", linear_quantized, {33, 70, 90, 3}},
    {"linear_quantized", linear_quantized, {1, 40, 24, 1}},
    {"linear_quantized", linear_quantized, {130, 192, 128, 3}},
    {"linear_unquantized", linear_unquantized, {1, 3, 5, 1}},
    {"linear_unquantized", linear_unquantized, {1, 200, 120, 3}},
    {"linear_unquantized", linear_unquantized, {65, 70, 90, 3}},
    {"linear_unquantized", linear_unquantized, {20, 1100, 30, 3}},
    {"linear_unquantized", linear_unquantized, {1, 70, 90, 3, 1}},
    {"linear_unquantized", linear_unquantized, {65, 70, 90, 3, 1}},
    {"linear_unquantized", linear_unquantized, {130, 192, 128, 2}},
    {"linear_unquantized", linear_unquantized, {20, 1100, 30, 3, 1}},
    {"ternary, dense", ternary_dense, {5, 7, 3}},
    {"ternary, dense", ternary_dense, {64, 80, 1}},
    {"ternary, dense", ternary_dense, {130, 257, 3}},
    {"ternary, dense", ternary_dense, {333, 500, 3}},
    {"ternary_load, dense", ternary_load_dense, {5, 7, 3}},
    {"ternary_load, dense", ternary_load_dense, {64, 160, 1}},
    {"ternary_load, dense", ternary_load_dense, {5, 78, 1}}, /* columns past K in the last of five blocks */
    {"ternary_load, dense", ternary_load_dense, {130, 237, 3}},
    {"ternary_load, dense", ternary_load_dense, {333, 500, 3}},
    {"linear_exact, dense",
     linear_exact_dense,
     {1, 5, 1536, 3}}, /* 1 row, 2 .. 6, 7 .. 16, more; 0 .. 4 blocks after the last five */
    {"linear_exact, dense", linear_exact_dense, {1, 64, 4096, 1}},
    {"linear_exact, dense", linear_exact_dense, {1, 260, 333, 3}},
    {"linear_exact, dense", linear_exact_dense, {1, 70, 80, 1}},
    {"linear_exact, dense", linear_exact_dense, {1, 200, 1030, 3}},
    {"linear_exact, dense", linear_exact_dense, {1, 65, 1390, 1}},
    {"linear_exact, dense", linear_exact_dense, {2, 31, 65, 2}},
    {"linear_exact, dense", linear_exact_dense, {3, 9, 20, 1}},
    {"linear_exact, dense", linear_exact_dense, {6, 130, 2000, 2}},
    {"linear_exact, dense", linear_exact_dense, {7, 130, 700, 2}},
    {"linear_exact, dense", linear_exact_dense, {16, 100, 1536, 3}},
    {"linear_exact, dense", linear_exact_dense, {17, 48, 100, 3}},
    {"linear_exact, dense", linear_exact_dense, {300, 80, 520, 3}},
    {"linear_exact, dense", linear_exact_dense, {70, 1030, 24, 2}},
    {"linear_extreme, dense", linear_extreme_dense, {7, 4100}},
    {"linear_extreme, dense, large", linear_extreme_dense, {1, 131000}},
    {"linear_unquantized, dense", linear_unquantized_dense, {1, 200, 120, 3}},
    {"linear_unquantized, dense", linear_unquantized_dense, {65, 70, 90, 3}},
    {"linear_unquantized, dense", linear_unquantized_dense, {20, 1100, 30, 3, 1}},
    {"linear_backward", linear_backward, {1, 1, 1, 1, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {1, 40, 24, 3, X_I8, 1, 0}},
    {"linear_backward", linear_backward, {5, 17, 20, 3, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {65, 70, 90, 3, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {65, 70, 90, 3, X_I8, 0, 0, 1}},
    {"linear_backward", linear_backward, {65, 70, 90, 3, X_ACT, 0, 0}},
    {"linear_backward", linear_backward, {65, 70, 90, 2, X_ACT, 1, 0}},
    {"linear_backward", linear_backward, {65, 70, 90, 2, X_ACT, 1, 0, 1}},
    {"linear_backward", linear_backward, {64, 128, 96, 1, X_I8, 1, 0}},
    {"linear_backward", linear_backward, {33, 70, 90, 3, X_F32, 1, 0}},
    {"linear_backward", linear_backward, {33, 70, 90, 3, X_F32, 1, 0, 1}},
    {"linear_backward", linear_backward, {130, 193, 127, 3, X_I8, 1, 0}},
    {"linear_backward", linear_backward, {130, 193, 127, 3, X_I8, 1, 0, 1}},
    {"linear_backward", linear_backward, {130, 192, 128, 3, X_I8, 0, 1}},
    {"linear_backward", linear_backward, {20, 30, 1100, 2, X_I8, 1, 0}},
    {"linear_backward", linear_backward, {20, 1100, 30, 3, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {1100, 40, 24, 1, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {2100, 20, 70, 1, X_I8, 1, 0}},
    {"linear_backward, large", linear_backward, {2100, 20, 70, 1, X_I8, 1, 0, 1}},
    {"linear_backward", linear_backward, {7, 1801, 70, 3, X_I8, 0, 0}},
    {"linear_backward", linear_backward, {48, 112, 65, 1, X_I8, 1, 0}},
    {"linear_backward", linear_backward, {31, 47, 97, 2, X_ACT, 0, 0}},
    {"head", head, {1, 256, 20}},
    {"head", head, {3, 256, 33}},
    {"head", head, {65, 256, 64}},
    {"head", head, {130, 256, 70}},
    {"head", head, {70, 333, 52}}, /* as the layers of dense models are */
    {"head", head, {5, 20, 90}},
};

int main(int argc, char **argv) {
    const struct CMUnitTest extra[] = {cmocka_unit_test(rows_without_scale), cmocka_unit_test(signals_meet_the_stack),
                                       cmocka_unit_test(signals_leave_products_as_they_are)};
    return ops_compare_all(argc, argv, NULL, cases, sizeof cases / sizeof *cases, extra, sizeof extra / sizeof *extra);
}
