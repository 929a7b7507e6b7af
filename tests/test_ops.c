// SPDX-License-Identifier: MIT
/* Operations on rows and elements, cpu compared with ref. Tolerances are counted in roundings: U_F32 for each f32 operation of cpu
 * (ref works in double), n * U_F32 times the sum of magnitudes for a sum of n, EXP for its exponential,
 * U_ACT for storing an activation. */
#include "core/adam8_map.h"
#include "ops_compare.h"

#define EXP 4e-7 /* relative error of e^x in f32 including the rounding of its argument, |x| < 4 */

static double *bounds(ops_session *s, int64_t n) { return ops_host(s, (size_t)n * sizeof(double)); }

enum { ROWS_ACT, ROWS_F32, ROWS_I8 };

static bb_rows rows_of(ops_session *s, int64_t M, int64_t K, int64_t kind) {
    return ops_rows(s, M, K, kind == ROWS_I8 ? BB_I8 : kind == ROWS_F32 ? BB_F32 : s->dev->ops->act_dtype);
}

/* Rows y from `forward`, which ran into them; again into f32 rows `exact` on ref. Quantized rows are compared as what they
 * stand for: each value within half a step of the unquantized one (and a hair, for what rounding did before). */
static void out_rows(ops_session *s, ops_outputs *out, bb_rows y, int64_t kind, const float *exact, int64_t M, int64_t K,
                     double relative) {
    float *value;
    double *bound = bounds(s, M * K);
    if (y.dtype == BB_I8) {
        const float *scale = ops_get_f32(s, y.scale, M);
        const int8_t *q = ops_get(s, y.data, (size_t)(M * K));
        value = ops_host_f32(s, M * K);
        for (int64_t i = 0; i < M * K; i++) {
            value[i] = ops_is_ref(s) ? exact[i] : scale[i / K] * (float)q[i];
            bound[i] = (0.5 + 127 * 2 * (relative + U_F32)) * (double)scale[i / K];
        }
        ops_out(out, "scale", scale, M, relative + U_F32, NULL);
        ops_out(out, "scale * q", value, M * K, 0, bound);
    } else if (kind == ROWS_F32) {
        ops_out(out, "y", ops_get_f32(s, y.data, M * K), M * K, relative, NULL);
    } else {
        ops_out_act(s, out, "y", y.data, M * K, relative + U_ACT, NULL);
    }
}

/* M, C, kind of rows */
static void rmsnorm_forward(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], C = d[1];
    float *x = ops_put_f32(s, ops_normal_f32(s, M * C, 3.0), M * C), *w = ops_put_f32(s, ops_normal_f32(s, C, 1.0), C);
    float *r = ops_room(s, (size_t)M * sizeof *r), *exact = ops_room(s, (size_t)(M * C) * sizeof *exact);
    bb_rows y = rows_of(s, M, C, d[2]);
    const bb_norm norm = {w, 1e-6f, M, C};
    s->dev->ops->rmsnorm_forward(s->dev, (bb_rows){.data = exact, .dtype = BB_F32}, r, x, &norm);
    s->dev->ops->rmsnorm_forward(s->dev, y, r, x, &norm);
    ops_out(out, "r", ops_get_f32(s, r, M), M, 2 * U_F32, NULL);
    out_rows(s, out, y, d[2], exact, M, C, 5 * U_F32); /* r, two products, what ref rounds */
}

/* M, C */
static void rmsnorm_backward(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], C = d[1];
    float *dx0 = ops_normal_f32(s, M * C, 1.0), *dw0 = ops_normal_f32(s, C, 1.0), *dy0 = ops_normal(s, M * C, 1.0);
    float *x0 = ops_normal_f32(s, M * C, 3.0), *w0 = ops_normal_f32(s, C, 1.0);
    float *dx = ops_put_f32(s, dx0, M * C), *dw = ops_put_f32(s, dw0, C), *x = ops_put_f32(s, x0, M * C);
    float *w = ops_put_f32(s, w0, C), *r = ops_room(s, (size_t)M * sizeof *r);
    void *dy = ops_put_act(s, dy0, M * C);
    const bb_norm norm = {w, 1e-6f, M, C};
    s->dev->ops->rmsnorm_forward(s->dev, rows_of(s, M, C, ROWS_F32), r, x, &norm);
    s->dev->ops->rmsnorm_backward(s->dev, dx, dw, dy, x, r, &norm);

    const float *r0 = ops_get_f32(s, r, M);
    double *dx_bound = bounds(s, M * C), *dw_bound = bounds(s, C);
    for (int64_t c = 0; c < C; c++) dw_bound[c] = fabs((double)dw0[c]);
    for (int64_t m = 0; m < M; m++) {
        double magnitude = 0, rm = (double)r0[m];
        for (int64_t c = 0; c < C; c++) {
            double xw = fabs((double)dy0[m * C + c] * (double)x0[m * C + c]);
            magnitude += xw * fabs((double)w0[c]);
            dw_bound[c] += xw * rm;
        }
        for (int64_t c = 0; c < C; c++) {
            int64_t i = m * C + c;
            double direct = fabs((double)dx0[i]) + fabs(rm * (double)w0[c] * (double)dy0[i]);
            dx_bound[i] = U_F32 * (6 * direct + (double)(C + 10) * fabs((double)x0[i]) * rm * rm * rm / (double)C * magnitude);
        }
    }
    for (int64_t c = 0; c < C; c++) dw_bound[c] *= (double)(M + 6) * U_F32;
    ops_out(out, "dx", ops_get_f32(s, dx, M * C), M * C, 0, dx_bound);
    ops_out(out, "dw", ops_get_f32(s, dw, C), C, 0, dw_bound);
}

/* Codes and scales, exactly. Rows of many sizes, one of zeros, one below the least scale. M, K, kind of rows */
static void act_quant(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], K = d[1];
    float *x = ops_normal_f32(s, M * K, 1.0);
    for (int64_t i = 0; i < M * K; i++) {
        static const float sizes[] = {1, 1e3f, 1e-4f, 0, 1e-9f, 127};
        x[i] *= sizes[i / K % 6];
    }
    bb_rows y = rows_of(s, M, K, d[2]);
    s->dev->ops->act_quant(s->dev, y, ops_put_f32(s, x, M * K), M, K);
    if (d[2] == ROWS_F32) {
        ops_out(out, "y", ops_get_f32(s, y.data, M * K), M * K, 0, NULL);
        return;
    }
    if (y.dtype != BB_I8) {
        ops_out(out, "y", ops_rounded(ops_get_act(s, y.data, M * K), M * K), M * K, 0, NULL);
        return;
    }
    const int8_t *q = ops_get(s, y.data, (size_t)(M * K));
    float *codes = ops_host_f32(s, M * K);
    for (int64_t i = 0; i < M * K; i++) codes[i] = (float)q[i];
    ops_out(out, "q", codes, M * K, 0, NULL);
    ops_out(out, "scale", ops_get_f32(s, y.scale, M), M, 0, NULL);
}

/* n: exactly */
static void act_to_f32(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t n = d[0];
    float *x = ops_normal_f32(s, n, 1.0), *y = ops_room(s, (size_t)n * sizeof *y);
    s->dev->ops->act_to_f32(s->dev, y, ops_put_act(s, x, n), n);
    ops_out(out, "y", ops_rounded(ops_get_f32(s, y, n), n), n, 0, NULL);
}

/* Gates of all sizes, up to where the sigmoid is 1 in f32, and down to where it is far below the other terms. */
static float *gates(ops_session *s, int64_t M, int64_t F) {
    float *x = ops_normal_f32(s, 2 * M * F, 2.0);
    for (int64_t i = 0; i < M * F; i += 7) {
        static const float far[] = {100.0f, -60.0f, 30.0f, -30.0f, 0.0f};
        x[i / F * 2 * F + i % F] = far[i / 7 % 5];
    }
    return x;
}

/* M, F, kind of rows */
static void swiglu_forward(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], F = d[1];
    float *gate_up0 = gates(s, M, F), *gate_up = ops_put_f32(s, gate_up0, 2 * M * F);
    bb_rows y = rows_of(s, M, F, d[2]), exact = rows_of(s, M, F, ROWS_F32);
    void *kept = ops_put_act(s, gate_up0, 2 * M * F);
    s->dev->ops->zero(s->dev, kept, (size_t)(2 * M * F) * bb_dtype_bytes(s->dev->ops->act_dtype));
    s->dev->ops->swiglu_forward(s->dev, exact, NULL, gate_up, M, F);
    s->dev->ops->swiglu_forward(s->dev, y, kept, gate_up, M, F);
    ops_out(out, "kept", ops_rounded(ops_get_act(s, kept, 2 * M * F), 2 * M * F), 2 * M * F, 0, NULL);
    out_rows(s, out, y, d[2], exact.data, M, F, 64 * U_F32 + EXP); /* e^x with |x| <= 60 */
}

/* M, F */
static void swiglu_backward(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], F = d[1];
    float *gate_up0 = ops_rounded(gates(s, M, F), 2 * M * F), *dh0 = ops_normal(s, M * F, 1.0);
    void *gate_up = ops_put_act(s, gate_up0, 2 * M * F), *dh = ops_put_act(s, dh0, M * F),
         *d_gate_up = ops_put_act(s, gate_up0, 2 * M * F);
    s->dev->ops->swiglu_backward(s->dev, d_gate_up, gate_up, dh, M, F);
    double *bound = bounds(s, 2 * M * F);
    for (int64_t m = 0; m < M; m++)
        for (int64_t f = 0; f < F; f++) {
            double g = (double)gate_up0[m * 2 * F + f], up = (double)gate_up0[m * 2 * F + F + f], dhi = (double)dh0[m * F + f];
            double sigmoid = 1 / (1 + exp(-g)), each = 68 * U_F32 + EXP;
            bound[m * 2 * F + f] = each * fabs(dhi * up) * sigmoid * (1 + fabs(g)) + 1e-30;
            bound[m * 2 * F + F + f] = each * fabs(dhi * g) * sigmoid + 1e-30;
        }
    ops_out_act(s, out, "d_gate_up", d_gate_up, 2 * M * F, U_ACT * (1 + U_ACT), bound);
}

/* B, T, heads, D, elements of a row past the heads, position0, backward */
static void rope(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t B = d[0], T = d[1], heads = d[2], D = d[3], stride = heads * D + d[4], position0 = d[5], n = B * T * stride;
    int64_t table = (position0 + T) * D / 2;
    float *x = ops_normal(s, n, 1.0), *cosine = ops_host_f32(s, table), *sine = ops_host_f32(s, table);
    for (int64_t i = 0; i < table; i++) {
        int64_t position = i / (D / 2), pair = i % (D / 2);
        double angle = (double)position * pow(10000, -2.0 * (double)pair / (double)D);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    double *bound = bounds(s, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t c = i % stride, partner = c % D < D / 2 ? i + D / 2 : i - D / 2;
        bool is_turned = c < heads * D; /* the rest of the row, exactly */
        bound[i] = is_turned ? 4 * U_F32 * (fabs((double)x[i]) + fabs((double)x[partner])) : 0;
    }
    const float *cos_table = ops_put_f32(s, cosine, table), *sin_table = ops_put_f32(s, sine, table);
    void *kept = ops_put_act(s, x, n);
    const bb_rope turn = {cos_table, sin_table, B, T, heads, D, stride};
    if (d[6]) {
        s->dev->ops->rope_backward(s->dev, kept, &turn);
    } else {
        float *turned = ops_put_f32(s, x, n);
        s->dev->ops->rope_forward(s->dev, turned, kept, position0, &turn);
        ops_out(out, "x", ops_get_f32(s, turned, n), n, 0, bound);
    }
    ops_out_act(s, out, "kept or dx", kept, n, U_ACT, bound);
}

/* M, C, bytes used */
static void embedding(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], V = 256, C = d[1];
    uint8_t *idx0 = ops_bytes(s, M, (uint64_t)d[2]), *idx = ops_put(s, idx0, (size_t)M);
    float *e = ops_put_f32(s, ops_normal_f32(s, V * C, 1.0), V * C), *x = ops_room(s, (size_t)(M * C) * sizeof *x);
    float *dx0 = ops_normal_f32(s, M * C, 1.0), *de0 = ops_normal_f32(s, V * C, 1.0), *de = ops_put_f32(s, de0, V * C);
    s->dev->ops->embedding_forward(s->dev, x, idx, e, M, V, C);
    s->dev->ops->embedding_backward(s->dev, de, idx, ops_put_f32(s, dx0, M * C), M, V, C);
    double *bound = bounds(s, V * C);
    for (int64_t i = 0; i < V * C; i++) bound[i] = fabs((double)de0[i]);
    for (int64_t i = 0; i < M * C; i++) bound[idx0[i / C] * C + i % C] += fabs((double)dx0[i]);
    for (int64_t i = 0; i < V * C; i++) bound[i] *= (double)(M + 1) * U_F32;
    ops_out(out, "x", ops_get_f32(s, x, M * C), M * C, 0, NULL);
    ops_out(out, "de", ops_get_f32(s, de, V * C), V * C, 0, bound);
}

/* M, K, C, rows; the last row of the table is zero */
static void ngrams(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], K = d[1], C = d[2], R = d[3];
    float *values0 = ops_normal_f32(s, R * C, 1.0), *x0 = ops_normal_f32(s, M * C, 1.0), *dx0 = ops_normal_f32(s, M * C, 1.0);
    memset(values0 + (R - 1) * C, 0, (size_t)C * sizeof *values0);
    int32_t *index0 = ops_host(s, (size_t)(M * K) * sizeof *index0);
    uint8_t *random = ops_bytes(s, M * K, 256);
    for (int64_t i = 0; i < M * K; i++) index0[i] = random[i] % 8 == 0 ? -1 : (int32_t)(random[i] % R);
    const int32_t *index = ops_put(s, index0, (size_t)(M * K) * sizeof *index0);
    bb_ngram_table by_value = {.values = ops_put_f32(s, values0, R * C), .R = R, .C = C};
    bb_ngram_table by_code = {.codes = ops_room(s, (size_t)(R * C)), .scales = ops_room(s, (size_t)R * 2), .R = R, .C = C};
    float *x = ops_put_f32(s, x0, M * C), *again = ops_put_f32(s, x0, M * C), *d_table = ops_put_f32(s, values0, R * C);
    s->dev->ops->ngram_forward(s->dev, x, &by_value, index, M, K);
    s->dev->ops->ngram_quant(s->dev, &by_code, by_value.values, 0, 1);
    s->dev->ops->ngram_quant(s->dev, &by_code, by_value.values + C, 1, R - 1);
    s->dev->ops->ngram_forward(s->dev, again, &by_code, index, M, K);
    s->dev->ops->ngram_backward(s->dev, d_table, index, ops_put_f32(s, dx0, M * C), M, K, C);
    ops_out(out, "x", ops_get_f32(s, x, M * C), M * C, 0, NULL);
    ops_out(out, "x of codes", ops_get_f32(s, again, M * C), M * C, 0, NULL);
    ops_out(out, "d_table", ops_get_f32(s, d_table, R * C), R * C, 0, NULL); /* all add in one order */
    float *same = ops_get_f32(s, x, M * C), *other = ops_get_f32(s, again, M * C);
    assert_memory_equal(same, other, (size_t)(M * C) * sizeof *same);

    const bb_row_adagrad h = {.lr = 0.3, .eps = 1e-8, .grad_scale = 0.37};
    float *g0 = ops_normal_f32(s, R * C, 1.0), *v0 = ops_normal_f32(s, R, 1.0);
    for (int64_t r = 0; r < R; r++) v0[r] *= v0[r];
    memset(g0, 0, (size_t)C * sizeof *g0); /* a row that stays as it is */
    float *p = ops_put_f32(s, values0, R * C), *v = ops_put_f32(s, v0, R);
    s->dev->ops->row_adagrad_step(s->dev, p, ops_put_f32(s, g0, R * C), v, R, C, &h);
    double *p_bound = bounds(s, R * C), *v_bound = bounds(s, R);
    for (int64_t r = 0; r < R; r++) {
        double sum = 0;
        for (int64_t c = 0; c < C; c++) sum += (double)g0[r * C + c] * (double)g0[r * C + c];
        double now = (double)v0[r] + sum * h.grad_scale * h.grad_scale / (double)C;
        v_bound[r] = sum > 0 ? (double)(C + 6) * U_F32 * now : 0;
        for (int64_t c = 0; c < C; c++) {
            double step = h.lr * h.grad_scale * fabs((double)g0[r * C + c]) / (sqrt(now) + h.eps);
            p_bound[r * C + c] = sum > 0 ? 2 * U_F32 * fabs((double)values0[r * C + c]) + (double)(C + 16) * U_F32 * step : 0;
        }
    }
    ops_out(out, "p", ops_get_f32(s, p, R * C), R * C, 0, p_bound);
    ops_out(out, "v", ops_get_f32(s, v, R), R, 0, v_bound);
}

/* M, V, in place */
static void loss(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t M = d[0], V = d[1];
    float *logits0 = ops_normal_f32(s, M * V, 5.0), *logits = ops_put_f32(s, logits0, M * V);
    float *nll = ops_room(s, (size_t)M * sizeof *nll), *dlogits = d[2] ? logits : ops_put_f32(s, logits0, M * V);
    uint8_t *y = ops_put(s, ops_bytes(s, M, (uint64_t)V), (size_t)M);
    const float scale = 0.125f;
    s->dev->ops->loss_forward(s->dev, nll, logits, y, M, V);
    s->dev->ops->loss_backward(s->dev, dlogits, logits, y, scale, M, V);
    double *nll_bound = bounds(s, M), *d_bound = bounds(s, M * V);
    /* relative, of a probability: x - max is up to 50, so e^x has an argument rounded by 50 U_F32; the sum adds V U_F32 */
    double each = EXP + (double)(V + 54) * U_F32;
    for (int64_t m = 0; m < M; m++) {
        double largest = 0;
        for (int64_t v = 0; v < V; v++) {
            largest = fmax(largest, fabs((double)logits0[m * V + v]));
            d_bound[m * V + v] = (double)scale * (each + U_F32);
        }
        nll_bound[m] = each + 4 * U_F32 * largest;
    }
    ops_out(out, "nll", ops_get_f32(s, nll, M), M, 0, nll_bound);
    ops_out(out, "dlogits", ops_get_f32(s, dlogits, M * V), M * V, 0, d_bound);
}

static const bb_adamw adamw_settings = {.lr = 1e-3,
                                        .beta1 = 0.9,
                                        .beta2 = 0.95,
                                        .eps = 1e-8,
                                        .weight_decay = 0.1,
                                        .grad_scale = 0.37,
                                        .bias_correction1 = 0.271,
                                        .bias_correction2 = 0.142625};

/* The error of p: its own rounding, and the step's dozen roundings. v >= (1-b2) g^2 keeps the step below lr * 5. */
static double step_bound(float p, double step) { return 2 * U_F32 * fabs((double)p) + 16 * U_F32 * fabs(step); }

/* n */
static void adamw(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t n = d[0];
    const bb_adamw h = adamw_settings;
    float *p0 = ops_normal_f32(s, n, 1.0), *g0 = ops_normal_f32(s, n, 1.0), *m0 = ops_normal_f32(s, n, 0.1),
          *v0 = ops_normal_f32(s, n, 0.1);
    for (int64_t i = 0; i < n; i++) v0[i] *= v0[i];
    float *p = ops_put_f32(s, p0, n), *m = ops_put_f32(s, m0, n), *v = ops_put_f32(s, v0, n);
    s->dev->ops->adamw_step(s->dev, p, ops_put_f32(s, g0, n), m, v, n, &h);
    double *p_bound = bounds(s, n), *m_bound = bounds(s, n);
    for (int64_t i = 0; i < n; i++) {
        double g = h.grad_scale * (double)g0[i];
        m_bound[i] = 4 * U_F32 * (fabs((double)m0[i]) + fabs(g));
        p_bound[i] =
            step_bound(p0[i], h.lr * (5 + fabs((double)m0[i]) / h.bias_correction1 / sqrt((double)v0[i] / 0.2 + 1e-30)));
    }
    ops_out(out, "p", ops_get_f32(s, p, n), n, 0, p_bound);
    ops_out(out, "m", ops_get_f32(s, m, n), n, 0, m_bound);
    ops_out(out, "v", ops_get_f32(s, v, n), n, 6 * U_F32, NULL);
}

/* A moment's bytes, as what they stand for: the entry of the map nearest to `exact` / absmax. */
static void out_moment(ops_session *s, ops_outputs *out, const char *name, const uint8_t *codes, const float *absmax,
                       const double *exact, int64_t n, bool is_signed) {
    const uint8_t *code = ops_get(s, codes, (size_t)n);
    const float *largest = ops_get_f32(s, absmax, (n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK);
    float *value = ops_host_f32(s, n);
    double *bound = bounds(s, n);
    for (int64_t i = 0; i < n; i++) {
        double unit = (double)largest[i / BB_ADAM8_BLOCK], nearest = 2;
        value[i] = ops_is_ref(s) ? (float)exact[i] : (float)((double)bb_adam8_value(code[i], is_signed) * unit);
        if (!ops_is_ref(s)) continue;
        for (int j = 0; j < 256; j++)
            nearest = fmin(nearest, fabs((double)bb_adam8_value((uint8_t)j, is_signed) - exact[i] / unit));
        bound[i] = (nearest + 16 * U_F32) * unit;
    }
    ops_out(out, name, value, n, 0, bound);
}

/* n */
static void adamw8bit(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t n = d[0], blocks = (n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK;
    const bb_adamw h = adamw_settings;
    float *p0 = ops_normal_f32(s, n, 1.0), *g0 = ops_normal_f32(s, n, 1.0), *unit0 = ops_normal_f32(s, blocks, 0.1),
          *v_unit0 = ops_normal_f32(s, blocks, 0.1);
    uint8_t *m_codes = ops_bytes(s, n, 256), *v_codes = ops_bytes(s, n, 256);
    for (int64_t i = 0; i < n; i++) g0[i] *= powf(10.0f, (float)(-(i % 7)));
    for (int64_t b = 0; b < blocks; b++) unit0[b] = fabsf(unit0[b]), v_unit0[b] = fabsf(v_unit0[b]);
    bb_adam8_state a = {ops_put(s, m_codes, (size_t)n), ops_put(s, v_codes, (size_t)n), ops_put_f32(s, unit0, blocks),
                        ops_put_f32(s, v_unit0, blocks)};
    float *p = ops_put_f32(s, p0, n);
    s->dev->ops->adamw8bit_step(s->dev, p, ops_put_f32(s, g0, n), a, n, &h);

    double *m = bounds(s, n), *v = bounds(s, n), *p_bound = bounds(s, n);
    for (int64_t i = 0; i < n; i++) {
        double g = h.grad_scale * (double)g0[i], unit = (double)unit0[i / BB_ADAM8_BLOCK];
        m[i] = h.beta1 * (double)bb_adam8_value(m_codes[i], true) * unit + (1 - h.beta1) * g;
        v[i] =
            h.beta2 * (double)bb_adam8_value(v_codes[i], false) * (double)v_unit0[i / BB_ADAM8_BLOCK] + (1 - h.beta2) * g * g;
        v[i] = fmax(v[i], bb_adam8_min_v(&h) * m[i] * m[i]);
        double root = sqrt(v[i] / h.bias_correction2) + h.eps, terms = h.beta1 * unit + (1 - h.beta1) * fabs(g);
        p_bound[i] = step_bound(p0[i], h.lr * terms / h.bias_correction1 / root);
    }
    ops_out(out, "p", ops_get_f32(s, p, n), n, 0, p_bound);
    ops_out(out, "m_absmax", ops_get_f32(s, a.m_absmax, blocks), blocks, 6 * U_F32, NULL);
    ops_out(out, "v_absmax", ops_get_f32(s, a.v_absmax, blocks), blocks, 16 * U_F32, NULL);
    out_moment(s, out, "m", a.m, a.m_absmax, m, n, true);
    out_moment(s, out, "v", a.v, a.v_absmax, v, n, false);
}

/* n: the bytes that init writes, and that a step without gradients keeps */
static void adamw8bit_zero(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t n = d[0], blocks = (n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK;
    float *ones = ops_put_f32(s, ops_normal_f32(s, blocks, 1.0), blocks), *p = ops_put_f32(s, ops_normal_f32(s, n, 1.0), n);
    bb_adam8_state a = {ops_room(s, (size_t)n), ops_room(s, (size_t)n), ones, ops_room(s, (size_t)blocks * sizeof(float))};
    s->dev->ops->adamw8bit_init(s->dev, a, n);
    s->dev->ops->adamw8bit_step(s->dev, p, ops_room(s, (size_t)n * sizeof(float)), a, n, &adamw_settings);
    const uint8_t *m = ops_get(s, a.m, (size_t)n), *v = ops_get(s, a.v, (size_t)n);
    float *codes = ops_host_f32(s, 2 * n);
    for (int64_t i = 0; i < n; i++) codes[i] = (float)m[i], codes[n + i] = (float)v[i];
    ops_out(out, "codes", codes, 2 * n, 0, NULL);
    ops_out(out, "m_absmax", ops_get_f32(s, a.m_absmax, blocks), blocks, 0, NULL);
    ops_out(out, "v_absmax", ops_get_f32(s, a.v_absmax, blocks), blocks, 0, NULL);
    ops_out(out, "p", ops_get_f32(s, p, n), n, 3 * U_F32, NULL);
}

/* Moments near the edges between two codes. With betas of 0 they are g and g^2, the same bits in ref and cpu, and so must the
 * codes be. n */
static void adamw8bit_codes(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t n = d[0], blocks = (n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK;
    const bb_adamw h = {.lr = 0, .eps = 1e-8, .grad_scale = 1, .bias_correction1 = 1, .bias_correction2 = 1};
    float *g = ops_normal_f32(s, n, 1e-7); /* how far from the edge, in parts of it */
    const uint8_t *code = ops_bytes(s, n, 255);
    for (int64_t i = 0; i < n; i++) {
        bool is_signed = i & 1;
        float edge = (bb_adam8_value(code[i], is_signed) + bb_adam8_value((uint8_t)(code[i] + 1), is_signed)) / 2;
        edge *= 1 + g[i];
        g[i] = i % BB_ADAM8_BLOCK == 0 ? 1 : is_signed ? edge : sqrtf(edge);
    }
    bb_adam8_state a = {ops_room(s, (size_t)n), ops_room(s, (size_t)n), ops_room(s, (size_t)blocks * sizeof(float)),
                        ops_room(s, (size_t)blocks * sizeof(float))};
    s->dev->ops->adamw8bit_init(s->dev, a, n);
    s->dev->ops->adamw8bit_step(s->dev, ops_room(s, (size_t)n * sizeof(float)), ops_put_f32(s, g, n), a, n, &h);
    const uint8_t *m = ops_get(s, a.m, (size_t)n), *v = ops_get(s, a.v, (size_t)n);
    float *codes = ops_host_f32(s, 2 * n);
    for (int64_t i = 0; i < n; i++) codes[i] = (float)m[i], codes[n + i] = (float)v[i];
    ops_out(out, "codes", codes, 2 * n, 0, NULL);
}

/* -- beside the table
 * ---------------------------------------------------------------------------------------------------------- */

static void sum_squares_agrees(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 15, 1000, 4096, 65537, 300001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum { MOST = 300001 / BB_NORM_TILE + 1 };
        static double sum[3][MOST];
        int64_t tiles = (sizes[i] + BB_NORM_TILE - 1) / BB_NORM_TILE;
        bb_device *const devices[3] = {ops_ref, ops_tested[0], ops_tested[1]};
        for (int j = 0; j < 3; j++) {
            ops_session s = ops_begin(devices[j], 1);
            float *x = ops_put_f32(&s, ops_normal_f32(&s, sizes[i], 1e3), sizes[i]);
            double *sums = ops_room(&s, (size_t)tiles * sizeof *sums);
            s.dev->ops->sum_squares(s.dev, sums, x, sizes[i]);
            memcpy(sum[j], ops_get(&s, sums, (size_t)tiles * sizeof *sums), (size_t)tiles * sizeof *sums);
            ops_end(&s);
        }
        for (int64_t t = 0; t < tiles; t++) {
            /* squares of f32 are exact in double, so only the sum rounds: n 2^-53 */
            ops_assert_near(sum[1][t], sum[0][t], (double)BB_NORM_TILE * 0x1p-53 * sum[0][t], "sum_squares", sizes[i]);
            assert_true(sum[1][t] == sum[2][t]);
        }
    }
}

/* One rounding of one exact sum each: every backend gives the same bits. */
static void add_agrees(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 15, 1000, 4096, 4097, 300001};
    bb_device *const devices[3] = {ops_ref, ops_tested[0], ops_tested[1]};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t n = sizes[i];
        float *sum[3];
        for (int j = 0; j < 3; j++) {
            ops_session s = ops_begin(devices[j], 1);
            float *x = ops_put_f32(&s, ops_normal_f32(&s, n, 1e3), n), *y = ops_put_f32(&s, ops_normal_f32(&s, n, 1), n);
            s.dev->ops->add(s.dev, y, x, n);
            sum[j] = malloc((size_t)n * sizeof(float));
            s.dev->ops->copy_out(s.dev, sum[j], y, (size_t)n * sizeof(float));
            ops_end(&s);
        }
        assert_memory_equal(sum[0], sum[1], (size_t)n * sizeof(float));
        assert_memory_equal(sum[0], sum[2], (size_t)n * sizeof(float));
        for (int j = 0; j < 3; j++) free(sum[j]);
    }
}

static void activations_round_half_to_even(void **state) {
    (void)state;
    ops_session s = ops_begin(ops_tested[0], 1);
    enum { N = 1003 };
    float *x = ops_normal_f32(&s, N, 1.0);
    const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1.00390625f, 1.01171875f, 1e-40f, 3.4e38f};
    memcpy(x, special, sizeof special);
    const float *back = ops_get_act(&s, ops_put_act(&s, x, N), N);
    for (int i = 0; i < N; i++) {
        float expected = ops_to_act(&s, (double)x[i]);
        assert_memory_equal(&back[i], &expected, sizeof expected);
    }
    x[0] = NAN;
    assert_true(isnan(ops_get_act(&s, ops_put_act(&s, x, 1), 1)[0]));
    ops_end(&s);
}

/* A number that is not one must reach the loss, the scale and the norm, from any place: it is what stops a step. */
static void nan_is_not_lost(void **state) {
    (void)state;
    enum { M = 2, C = 37 };
    for (int which = 0; which < 2; which++) {
        bb_device *dev = which ? ops_tested[0] : ops_ref;
        for (int at = C; at < 2 * C; at += 9) {
            ops_session s = ops_begin(dev, 1);
            float *x0 = ops_normal(&s, 2 * M * C, 1.0);
            x0[at] = NAN;
            float *x = ops_put_f32(&s, x0, M * C), *w = ops_put_f32(&s, ops_normal(&s, C, 1.0), C);
            float *r = ops_room(&s, M * sizeof *r), *nll = ops_room(&s, M * sizeof *nll);
            const uint8_t y[M] = {0, 0};
            bb_rows rows = ops_rows(&s, M, C, BB_I8);
            dev->ops->rmsnorm_forward(dev, rows, r, x, &(bb_norm){w, 1e-6f, M, C});
            assert_true(isnan(ops_get_f32(&s, rows.scale, M)[1]) && isfinite(ops_get_f32(&s, rows.scale, M)[0]));
            dev->ops->act_quant(dev, rows, x, M, C);
            assert_true(isnan(ops_get_f32(&s, rows.scale, M)[1]) && isfinite(ops_get_f32(&s, rows.scale, M)[0]));
            dev->ops->loss_forward(dev, nll, x, ops_put(&s, y, M), M, C);
            assert_true(isnan(ops_get_f32(&s, nll, M)[1]) && isfinite(ops_get_f32(&s, nll, M)[0]));
            double *squares = ops_room(&s, sizeof *squares);
            dev->ops->sum_squares(dev, squares, x, M * C);
            assert_true(isnan(*(const double *)ops_get(&s, squares, sizeof *squares)));
            x0[at] = 1.0f;
            x0[0] = NAN; /* of the first row's gate */
            dev->ops->swiglu_forward(dev, rows, NULL, ops_put_f32(&s, x0, 2 * M * C), M, C);
            assert_true(isnan(ops_get_f32(&s, rows.scale, M)[0]) && isfinite(ops_get_f32(&s, rows.scale, M)[1]));
            ops_end(&s);
        }
    }
}

/* An 8-bit block keeps it in its absmax, and passes it on to all its parameters. */
static void nan_is_not_lost_in_8_bits(void **state) {
    (void)state;
    enum { N = 2 * BB_ADAM8_BLOCK + 9, BLOCKS = 3 };
    for (int which = 0; which < 2; which++) {
        bb_device *dev = which ? ops_tested[0] : ops_ref;
        ops_session s = ops_begin(dev, 1);
        float *g = ops_normal_f32(&s, N, 1.0), *p = ops_room(&s, N * sizeof *p);
        bb_adam8_state a = {ops_room(&s, N), ops_room(&s, N), ops_room(&s, BLOCKS * sizeof(float)),
                            ops_room(&s, BLOCKS * sizeof(float))};
        dev->ops->adamw8bit_init(dev, a, N);
        g[BB_ADAM8_BLOCK + 77] = NAN;
        dev->ops->adamw8bit_step(dev, p, ops_put_f32(&s, g, N), a, N, &adamw_settings);
        g[BB_ADAM8_BLOCK + 77] = 0;
        dev->ops->adamw8bit_step(dev, p, ops_put_f32(&s, g, N), a, N, &adamw_settings);
        const float *m = ops_get_f32(&s, a.m_absmax, BLOCKS), *v = ops_get_f32(&s, a.v_absmax, BLOCKS);
        for (int b = 0; b < BLOCKS; b++) assert_true(isnan(m[b]) == (b == 1) && isnan(v[b]) == (b == 1));
        const float *p1 = ops_get_f32(&s, p, N);
        for (int i = 0; i < N; i++) assert_true(isnan(p1[i]) == (i / BB_ADAM8_BLOCK == 1));
        ops_end(&s);
    }
}

static const ops_case cases[] = {
    {"rmsnorm_forward", rmsnorm_forward, {1, 1, ROWS_F32}},
    {"rmsnorm_forward", rmsnorm_forward, {3, 20, ROWS_F32}},
    {"rmsnorm_forward", rmsnorm_forward, {130, 256, ROWS_F32}},
    {"rmsnorm_forward", rmsnorm_forward, {1, 2, ROWS_ACT}},
    {"rmsnorm_forward", rmsnorm_forward, {65, 333, ROWS_ACT}},
    {"rmsnorm_forward", rmsnorm_forward, {1, 17, ROWS_I8}},
    {"rmsnorm_forward", rmsnorm_forward, {130, 200, ROWS_I8}},
    {"rmsnorm_forward", rmsnorm_forward, {2, 1536, ROWS_I8}},
    {"rmsnorm_backward", rmsnorm_backward, {1, 1}},
    {"rmsnorm_backward", rmsnorm_backward, {1, 40}},
    {"rmsnorm_backward", rmsnorm_backward, {17, 33}},
    {"rmsnorm_backward", rmsnorm_backward, {1100, 64}},
    {"rmsnorm_backward", rmsnorm_backward, {130, 256}},
    {"act_quant", act_quant, {1, 1, ROWS_I8}},
    {"act_quant", act_quant, {7, 20, ROWS_I8}},
    {"act_quant", act_quant, {150, 257, ROWS_I8}},
    {"act_quant", act_quant, {12, 1536, ROWS_I8}},
    {"act_quant", act_quant, {9, 21, ROWS_ACT}},
    {"act_quant", act_quant, {9, 21, ROWS_F32}},
    {"act_to_f32", act_to_f32, {1}},
    {"act_to_f32", act_to_f32, {4099}},
    {"swiglu_forward", swiglu_forward, {1, 1, ROWS_F32}},
    {"swiglu_forward", swiglu_forward, {5, 43, ROWS_F32}},
    {"swiglu_forward", swiglu_forward, {3, 100, ROWS_ACT}},
    {"swiglu_forward", swiglu_forward, {1, 18, ROWS_I8}},
    {"swiglu_forward", swiglu_forward, {130, 171, ROWS_I8}},
    {"swiglu_backward", swiglu_backward, {1, 1}},
    {"swiglu_backward", swiglu_backward, {5, 43}},
    {"swiglu_backward", swiglu_backward, {130, 171}},
    {"rope", rope, {1, 1, 1, 2, 0, 0, 0}},
    {"rope", rope, {2, 5, 3, 20, 20, 0, 0}},
    {"rope", rope, {2, 5, 3, 20, 20, 0, 1}},
    {"rope", rope, {1, 1, 4, 64, 128, 77, 0}},
    {"rope", rope, {2, 65, 3, 128, 128, 0, 0}},
    {"rope", rope, {2, 130, 2, 64, 64, 0, 1}},
    {"embedding", embedding, {1, 1, 256}},
    {"embedding", embedding, {70, 20, 256}},
    {"embedding", embedding, {300, 65, 2}},
    {"embedding", embedding, {500, 96, 256}},
    {"n-grams", ngrams, {1, 1, 1, 2}},
    {"n-grams", ngrams, {70, 3, 20, 9}},
    {"n-grams", ngrams, {300, 2, 65, 200}},
    {"n-grams", ngrams, {200, 6, 384, 64}},
    {"loss", loss, {1, 2, 0}},
    {"loss", loss, {5, 256, 0}},
    {"loss", loss, {5, 256, 1}},
    {"loss", loss, {130, 256, 1}},
    {"loss", loss, {33, 250, 0}},
    {"adamw", adamw, {1}},
    {"adamw", adamw, {100}},
    {"adamw", adamw, {70001}},
    {"adamw8bit", adamw8bit, {1}},
    {"adamw8bit", adamw8bit, {256}},
    {"adamw8bit", adamw8bit, {300}},
    {"adamw8bit", adamw8bit, {20000}},
    {"adamw8bit_zero", adamw8bit_zero, {300}},
    {"adamw8bit_codes", adamw8bit_codes, {7}},
    {"adamw8bit_codes", adamw8bit_codes, {50001}},
};

static bool same_elementwise(const bb_cpu_kernels *a, const bb_cpu_kernels *b) {
    return a->elementwise == b->elementwise && a->optimizer == b->optimizer && a->ternary == b->ternary;
}

int main(int argc, char **argv) {
    const struct CMUnitTest extra[] = {
        cmocka_unit_test(sum_squares_agrees),
        cmocka_unit_test(add_agrees),
        cmocka_unit_test(activations_round_half_to_even),
        cmocka_unit_test(nan_is_not_lost),
        cmocka_unit_test(nan_is_not_lost_in_8_bits),
    };
    return ops_compare_all(argc, argv, same_elementwise, cases, sizeof cases / sizeof *cases, extra,
                           sizeof extra / sizeof *extra);
}
