// SPDX-License-Identifier: MIT
/* Attention, cpu against ref. Where the bounds come from: scores are f32 sums, so e^score is off by SCORE in parts, and so is
 * the output; in the backward pass probabilities and their gradients are rounded to bf16 before they meet v, do, q and k, and
 * results are stored in bf16. Levels with VNNI, but not AMX, round both passes' sides to int8 as ops.h says, those with AVX2 to more
 * steps: each bound counts half a step of what is rounded, and nothing of what is a whole number of steps,as all that is ternary is.
 * cuda rounds the forward pass's sides to activations, which are bf16 or fp16. */
#include "core/math.h"
#include "ops_compare.h"

/* One case's host data. All strides count elements, and leave gaps that must stay as they are. */
typedef struct inputs {
    bb_attention a;
    int64_t q_count, kv_count, o_count, rows; /* rows: of lse */
    float *q, *k, *v, *d_o;
} inputs;

enum { GAP = 3 };

/* d: B, Tq, Tk, H, Hk, D, extra rows that k and v have past Tk (a cache that is not full), size of q in tenths. `normal` draws
 * in f32 or in bf16. */
static inputs draw(ops_session *s, const int64_t *d, float *(*normal)(ops_session *s, int64_t n, double scale)) {
    inputs in = {.a = {.B = d[0], .Tq = d[1], .Tk = d[2], .H = d[3], .Hk = d[4], .D = d[5]}};
    bb_attention *a = &in.a;
    a->q_stride = (a->H + 2 * a->Hk) * a->D;
    a->kv_stride = d[6] ? a->Hk * a->D : a->q_stride;
    a->kv_batch_stride = (a->Tk + d[6]) * a->kv_stride;
    a->o_stride = a->H * a->D + GAP;
    in.q_count = a->B * a->Tq * a->q_stride;
    in.kv_count = a->B * a->kv_batch_stride;
    in.o_count = a->B * a->Tq * a->o_stride;
    in.rows = a->B * a->H * a->Tq;
    in.q = normal(s, in.q_count, (double)d[7] / 10);
    in.k = normal(s, in.kv_count, 1.0);
    in.v = normal(s, in.kv_count, 1.0);
    in.d_o = normal(s, in.o_count, 1.0);
    return in;
}

/* {-1, 0, 1} times scale. */
static float *ternary(ops_session *s, int64_t n, double scale) {
    float *x = ops_host_f32(s, n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * ((double)bb_rng_below(s->seed, BB_STREAM_TEST, s->drawn++, 3) - 1));
    return x;
}

static double code_steps(void) { return attention_steps(ops_tested[0]); }
/* Where a backward pass follows, cuda rounds q, k, v and probabilities to activations. */
static bool in_act(void) { return strcmp(bb_device_name(ops_tested[0]), "cuda") == 0; }
static bool rounds(void) { return code_steps() > 0 || in_act(); }
static double weight_steps(void) { return code_steps() == 127 ? 255 : code_steps(); }

/* What rounding to so many steps up to `most` may be off by; 0 steps: it does not round so. */
static double half_step(double most, double steps) { return steps > 0 ? most / (2 * steps) : 0; }

/* What rounding is off by at random, as a part of most elements: the largest is three times as large as most at the most. */
static double random_step(void) { return in_act() ? U_ACT : rounds() ? 3 / code_steps() / sqrt(12) : 0; }

enum { VALUE_RUN = 256, KEY_RUN = 128, QUERY_RUN = 256 }; /* rows that share a column's step */

/* What rounding to code_steps() up to the largest of n elements, `apart` from one to the next, may put x off by. A bf16 is rounded
 * to first. */
static double off_by(const float *of, int64_t n, int64_t apart, double x) {
    double largest = 0;
    if (in_act()) return U_ACT * fabs(x) + TINY_ACT;
    if (!rounds()) return 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)of[i * apart]));
    double code = x / largest * code_steps();
    return largest == 0 || fabs(code - nearbyint(code)) < 1e-4 ? 0 : largest / (2 * code_steps()) + U_ACT * fabs(x);
}

/* The same for each element of `rows` rows of x: by rows and by the columns of runs of `run` rows. */
typedef struct roundings {
    double *row, *column; /* (rows, D) */
} roundings;

static roundings roundings_of(const float *x, int64_t rows, int64_t stride, int64_t D, int64_t run) {
    roundings r = {calloc((size_t)(rows * D), sizeof(double)), calloc((size_t)(rows * D), sizeof(double))};
    assert_true(r.row && r.column);
    for (int64_t t = 0; t < rows && rounds(); t++)
        for (int64_t e = 0; e < D; e++) {
            int64_t first = t / run * run, count = rows - first < run ? rows - first : run;
            r.row[t * D + e] = off_by(x + t * stride, D, 1, (double)x[t * stride + e]);
            r.column[t * D + e] = off_by(x + first * stride + e, count, stride, (double)x[t * stride + e]);
        }
    return r;
}

static void roundings_free(roundings *r) {
    free(r->row);
    free(r->column);
}

/* What the bounds of one query row are made of. */
typedef struct row {
    int64_t q, o, kv, seen; /* where its elements begin; keys it sees */
    double score;           /* error of e^(score - lse), in parts */
    double coarse;          /* what rounding q and k adds to it */
    double *p, *weight;     /* (Tk) probabilities; (D) sum of p |v| */
    double *max_value;      /* (Tk) largest |v| of each key's; of a cache of codes only */
} row;

/* q and k: roundings of this head's, or NULL. */
static void fill_row(row *r, const inputs *in, int64_t b, int64_t h, int64_t t, const roundings *q, const roundings *k) {
    const bb_attention *a = &in->a;
    r->q = (b * a->Tq + t) * a->q_stride + h * a->D;
    r->o = (b * a->Tq + t) * a->o_stride + h * a->D;
    r->kv = b * a->kv_batch_stride + h / (a->H / a->Hk) * a->D;
    r->seen = t + 1 + a->Tk - a->Tq;
    double max = -INFINITY, sum = 0, magnitude = 0;
    r->coarse = 0;
    for (int64_t j = 0; j < r->seen; j++) {
        double dot = 0, size = 0, coarse = 0;
        for (int64_t i = 0; i < a->D; i++) {
            double product = (double)in->q[r->q + i] * (double)in->k[r->kv + j * a->kv_stride + i];
            dot += product;
            size += fabs(product);
            if (!q) continue;
            double off_q = q->row[t * a->D + i], off_k = k->row[j * a->D + i];
            coarse += off_q * (fabs((double)in->k[r->kv + j * a->kv_stride + i]) + off_k);
            coarse += off_k * fabs((double)in->q[r->q + i]);
        }
        r->coarse = fmax(r->coarse, coarse / sqrt((double)a->D));
        r->p[j] = dot / sqrt((double)a->D);
        max = fmax(max, r->p[j]);
        magnitude = fmax(magnitude, size / sqrt((double)a->D));
    }
    for (int64_t j = 0; j < r->seen; j++) sum += r->p[j] = exp(r->p[j] - max);
    for (int64_t i = 0; i < a->D; i++) r->weight[i] = 0;
    for (int64_t j = 0; j < r->seen; j++) {
        r->p[j] /= sum;
        for (int64_t i = 0; i < a->D; i++) r->weight[i] += r->p[j] * fabs((double)in->v[r->kv + j * a->kv_stride + i]);
    }
    /* the sum of D, the scale, the maximum, the exponential; the sum over the keys */
    r->score = (double)(a->D + 8 + r->seen) * U_F32 * (1 + magnitude) + 4e-7;
}

static row row_for(ops_session *s, const bb_attention *a) {
    return (row){.p = ops_host(s, (size_t)a->Tk * sizeof(double)),
                 .weight = ops_host(s, (size_t)a->D * sizeof(double)),
                 .max_value = ops_host(s, (size_t)a->Tk * sizeof(double))};
}

/* What rounding the values, and a row's weights in a run of keys, adds to element e of its output. */
static double rounded_output(const inputs *in, const row *r, const roundings *v, int64_t e) {
    const bb_attention *a = &in->a;
    double sum = 0;
    for (int64_t j = 0; j < r->seen && in_act(); j++)
        sum += (U_ACT * r->p[j] + TINY_ACT) * fabs((double)in->v[r->kv + j * a->kv_stride + e]) +
               r->p[j] * v->column[j * a->D + e];
    for (int64_t first = 0; first < r->seen && code_steps() > 0; first += VALUE_RUN) {
        double most = 0, size = 0;
        for (int64_t j = first; j < r->seen && j < first + VALUE_RUN; j++) {
            most = fmax(most, r->p[j]);
            size += fabs((double)in->v[r->kv + j * a->kv_stride + e]);
            sum += r->p[j] * v->column[j * a->D + e];
        }
        sum += most / (2 * weight_steps()) * size;
    }
    return sum;
}

/* coarse: as where a backward pass follows. */
static void forward_bounds(ops_session *s, const inputs *in, bool coarse, double *o, double *lse) {
    const bb_attention *a = &in->a;
    row r = row_for(s, a);
    for (int64_t i = 0; i < in->rows; i += a->Tq) {
        int64_t b = i / a->Tq / a->H, h = i / a->Tq % a->H, kv = b * a->kv_batch_stride + h / (a->H / a->Hk) * a->D;
        roundings q = roundings_of(in->q + b * a->Tq * a->q_stride + h * a->D, a->Tq, a->q_stride, a->D, QUERY_RUN);
        roundings k = roundings_of(in->k + kv, a->Tk, a->kv_stride, a->D, KEY_RUN);
        roundings v = roundings_of(in->v + kv, a->Tk, a->kv_stride, a->D, VALUE_RUN);
        for (int64_t t = 0; t < a->Tq; t++) {
            fill_row(&r, in, b, h, t, coarse ? &q : NULL, &k);
            lse[i + t] = 2 * (r.score + r.coarse);
            for (int64_t e = 0; e < a->D; e++)
                o[r.o + e] = 3 * (r.score + r.coarse) * r.weight[e] + (coarse ? rounded_output(in, &r, &v, e) : 0);
        }
        roundings_free(&q);
        roundings_free(&k);
        roundings_free(&v);
    }
}

/* coarse: as where a backward pass follows. */
static void forward_of(ops_session *s, const int64_t *d, float *(*drawn)(ops_session *s, int64_t n, double scale), bool coarse,
                       ops_outputs *out) {
    inputs in = draw(s, d, drawn);
    const bb_attention *a = &in.a;
    float *o = ops_put_f32(s, in.d_o, in.o_count); /* anything: what is in the gaps must stay */
    void *kept = coarse ? ops_put_act(s, in.d_o, in.o_count) : NULL;
    float *lse = coarse ? ops_room(s, (size_t)in.rows * sizeof *lse) : NULL;
    const float *q = ops_put_f32(s, in.q, in.q_count), *k = ops_put_f32(s, in.k, in.kv_count);
    s->dev->ops->attention_forward(s->dev, o, kept, lse, (bb_qkv){q, k, ops_put_f32(s, in.v, in.kv_count)}, a);
    double *o_bound = ops_host(s, (size_t)in.o_count * sizeof *o_bound),
           *lse_bound = ops_host(s, (size_t)in.rows * sizeof *lse_bound);
    if (ops_is_ref(s)) forward_bounds(s, &in, coarse, o_bound, lse_bound);
    ops_out(out, "o", ops_get_f32(s, o, in.o_count), in.o_count, 0, o_bound);
    if (!coarse) return;
    /* Roundings are random: together they come to far less than the worst case, with q's and k's, to bf16 first, growing as q does. */
    double in_steps = (3 * random_step() + U_ACT) * sqrt(fmax(1, (double)d[7] / 10));
    if (rounds()) out->of[out->count - 1].by_norm = drawn == ternary ? 5e-3 : in_steps;
    ops_out_act(s, out, "kept", kept, in.o_count, U_ACT * (1 + U_ACT), o_bound);
    ops_out(out, "lse", ops_get_f32(s, lse, in.rows), in.rows, U_F32, lse_bound);
}

static void attention_forward(ops_session *s, const int64_t *d, ops_outputs *out) {
    forward_of(s, d, ops_normal_f32, false, out);
}
static void attention_forward_kept(ops_session *s, const int64_t *d, ops_outputs *out) {
    forward_of(s, d, ops_normal_f32, true, out);
}
static void attention_forward_ternary(ops_session *s, const int64_t *d, ops_outputs *out) {
    forward_of(s, d, ternary, true, out);
}

/* One head of one sequence: every query's and key's p and ds, and what they may be off by. */
typedef struct head_errors {
    double *p, *off_p, *ds, *off_ds;        /* (Tq, Tk) */
    double *p_most, *ds_most, *ds_row_most; /* (runs of queries, Tk) twice, (Tq, runs of keys) */
} head_errors;

/* dS = p (do.v - do.o) has an absolute error from do.o, where o is itself a bf16 (and forward's error is in it), and from its
 * own rounding, all in proportion to size = sum |do| (|v| + p|v|), and what int8 adds. */
static void fill_errors(head_errors *x, row *r, const inputs *in, int64_t b, int64_t h, const roundings *q, const roundings *k,
                        const roundings *v, const roundings *d_o) {
    const bb_attention *a = &in->a;
    for (int64_t t = 0; t < a->Tq; t++) {
        fill_row(r, in, b, h, t, q, k);
        double part = 4 * U_ACT + 6 * (r->score + r->coarse), delta = 0, off_delta = 0;
        for (int64_t j = 0; j < r->seen; j++)
            for (int64_t e = 0; e < a->D; e++)
                delta += r->p[j] * (double)in->d_o[r->o + e] * (double)in->v[r->kv + j * a->kv_stride + e];
        for (int64_t e = 0; e < a->D; e++) off_delta += fabs((double)in->d_o[r->o + e]) * rounded_output(in, r, v, e);
        for (int64_t j = 0; j < r->seen; j++) {
            int64_t at = r->kv + j * a->kv_stride, to = t * a->Tk + j;
            double size = 0, dp = 0, off_dp = 0;
            for (int64_t e = 0; e < a->D; e++) {
                double g = (double)in->d_o[r->o + e], y = (double)in->v[at + e], off_v = v->row[j * a->D + e];
                dp += g * y;
                size += fabs(g) * (fabs(y) + r->weight[e]);
                off_dp += fabs(g) * off_v + d_o->row[t * a->D + e] * (fabs(y) + off_v);
            }
            x->p[to] = r->p[j];
            x->off_p[to] = part * r->p[j] + TINY_ACT;
            x->ds[to] = fabs(r->p[j] * (dp - delta));
            x->off_ds[to] =
                r->p[j] * (part * size + (1 + part) * (off_dp + off_delta)) + sqrt((double)a->D) * TINY_ACT; /* ds is scaled */
        }
    }
    for (int64_t t = 0; t < a->Tq && rounds(); t++)
        for (int64_t j = 0; j < a->Tk; j++) {
            int64_t i = t * a->Tk + j, key = t / QUERY_RUN * a->Tk + j, query = t * (a->Tk / KEY_RUN + 1) + j / KEY_RUN;
            x->p_most[key] = fmax(x->p_most[key], x->p[i] + x->off_p[i]);
            x->ds_most[key] = fmax(x->ds_most[key], x->ds[i] + x->off_ds[i]);
            x->ds_row_most[query] = fmax(x->ds_row_most[query], x->ds[i] + x->off_ds[i]);
        }
}

/* dv[j] sums p do, dk and dq sum dS q and dS k. */
static void backward_bounds(ops_session *s, const inputs *in, double *dq, double *dk, double *dv) {
    const bb_attention *a = &in->a;
    row r = row_for(s, a);
    double scale = 1 / sqrt((double)a->D);
    size_t scores = (size_t)(a->Tq * a->Tk), runs = (size_t)((a->Tq / QUERY_RUN + 1) * a->Tk),
           row_runs = (size_t)(a->Tq * (a->Tk / KEY_RUN + 1));
    for (int64_t i = 0; i < a->B * a->H; i++) {
        int64_t b = i / a->H, h = i % a->H, kv = b * a->kv_batch_stride + h / (a->H / a->Hk) * a->D;
        int64_t q_at = b * a->Tq * a->q_stride + h * a->D, o_at = b * a->Tq * a->o_stride + h * a->D;
        roundings q = roundings_of(in->q + q_at, a->Tq, a->q_stride, a->D, QUERY_RUN);
        roundings d_o = roundings_of(in->d_o + o_at, a->Tq, a->o_stride, a->D, QUERY_RUN);
        roundings k = roundings_of(in->k + kv, a->Tk, a->kv_stride, a->D, KEY_RUN);
        roundings v = roundings_of(in->v + kv, a->Tk, a->kv_stride, a->D, VALUE_RUN);
        double *memory = calloc(4 * scores + 2 * runs + row_runs, sizeof(double));
        assert_non_null(memory);
        head_errors x = {.p = memory, .off_p = memory + scores, .ds = memory + 2 * scores, .off_ds = memory + 3 * scores};
        x.p_most = memory + 4 * scores;
        x.ds_most = x.p_most + runs;
        x.ds_row_most = x.ds_most + runs;
        fill_errors(&x, &r, in, b, h, &q, &k, &v, &d_o);
        for (int64_t t = 0; t < a->Tq; t++)
            for (int64_t j = 0; j < t + 1 + a->Tk - a->Tq; j++) {
                int64_t at = t * a->Tk + j, key = t / QUERY_RUN * a->Tk + j, query = t * (a->Tk / KEY_RUN + 1) + j / KEY_RUN;
                double off_p = x.off_p[at] + half_step(x.p_most[key], weight_steps()),
                       off_key = x.off_ds[at] + half_step(x.ds_most[key], code_steps()),
                       off_query = x.off_ds[at] + half_step(x.ds_row_most[query], code_steps());
                for (int64_t e = 0; e < a->D; e++) {
                    double *to_q = dq + q_at + t * a->q_stride + e, *to_k = dk + kv + j * a->kv_stride + e;
                    dv[kv + j * a->kv_stride + e] += off_p * fabs((double)in->d_o[o_at + t * a->o_stride + e]) +
                                                     (x.p[at] + off_p) * d_o.column[t * a->D + e];
                    *to_k += scale * (off_key * fabs((double)in->q[q_at + t * a->q_stride + e]) +
                                      (x.ds[at] + off_key) * q.column[t * a->D + e]);
                    *to_q += scale * (off_query * fabs((double)in->k[kv + j * a->kv_stride + e]) +
                                      (x.ds[at] + off_query) * k.column[j * a->D + e]);
                }
            }
        free(memory);
        roundings_free(&q);
        roundings_free(&d_o);
        roundings_free(&k);
        roundings_free(&v);
    }
}

static void backward_of(ops_session *s, const int64_t *d, float *(*drawn)(ops_session *s, int64_t n, double scale),
                        ops_outputs *out) {
    inputs in = draw(s, d, drawn);
    const bb_attention *a = &in.a;
    float *q0 = ops_put_f32(s, in.q, in.q_count), *k0 = ops_put_f32(s, in.k, in.kv_count),
          *v0 = ops_put_f32(s, in.v, in.kv_count), *o0 = ops_put_f32(s, in.d_o, in.o_count);
    void *q = ops_put_act(s, in.q, in.q_count), *k = ops_put_act(s, in.k, in.kv_count), *v = ops_put_act(s, in.v, in.kv_count);
    void *d_o = ops_put_act(s, in.d_o, in.o_count), *o = ops_put_act(s, in.d_o, in.o_count);
    void *dq = ops_put_act(s, in.q, in.q_count), *dk = ops_put_act(s, in.k, in.kv_count),
         *dv = ops_put_act(s, in.v, in.kv_count);
    float *lse = ops_room(s, (size_t)in.rows * sizeof *lse);
    s->dev->ops->attention_forward(s->dev, o0, o, lse, (bb_qkv){q0, k0, v0}, a);
    s->dev->ops->attention_backward(s->dev, (bb_qkv_gradient){dq, dk, dv}, d_o, (bb_qkv){q, k, v}, o, lse, a);
    double *bound[3];
    for (int i = 0; i < 3; i++) bound[i] = ops_host(s, (size_t)(i ? in.kv_count : in.q_count) * sizeof **bound);
    if (ops_is_ref(s)) backward_bounds(s, &in, bound[0], bound[1], bound[2]);
    /* storing: one more rounding of the result itself, but not in the gaps, where the bound is 0 */
    const float *result[3] = {ops_get_act(s, dq, in.q_count), ops_get_act(s, dk, in.kv_count), ops_get_act(s, dv, in.kv_count)};
    static const char *const names[3] = {"dq", "dk", "dv"};
    for (int i = 0; i < 3; i++) {
        int64_t n = i ? in.kv_count : in.q_count;
        for (int64_t j = 0; j < n; j++)
            if (bound[i][j] > 0) bound[i][j] += U_ACT * fabs((double)result[i][j]) + TINY_ACT;
        ops_out(out, names[i], result[i], n, 0, bound[i]);
        /* Those bounds are the worst case. Roundings are random, so together they come to less than one, or to a few where
         * the softmax is saturated and dS small beside do.o. With one key dq and dk are 0. In steps there are five, of p or ds
         * and of two sides' elements, and those of scores grow with q. */
        double in_steps = (drawn == ternary ? 4 : 5) * random_step() * sqrt(fmax(1, (double)d[7] / 10));
        if (a->Tk > 1) out->of[out->count - 1].by_norm = fmax(in_steps, 4 * U_ACT);
    }
}

static void attention_backward(ops_session *s, const int64_t *d, ops_outputs *out) { backward_of(s, d, ops_normal, out); }
static void attention_backward_ternary(ops_session *s, const int64_t *d, ops_outputs *out) { backward_of(s, d, ternary, out); }

/* What rounding q to `steps` steps up to its largest element adds to e^score, in parts. */
static double rounded_query(const inputs *in, const row *r, double steps) {
    const bb_attention *a = &in->a;
    double most = 0, size = 0;
    for (int64_t i = 0; i < a->D; i++) most = fmax(most, fabs((double)in->q[r->q + i]));
    for (int64_t j = 0; j < r->seen; j++) {
        double sum = 0;
        for (int64_t i = 0; i < a->D; i++) sum += fabs((double)in->k[r->kv + j * a->kv_stride + i]);
        size = fmax(size, sum);
    }
    return most / (2 * steps) * size / sqrt((double)a->D);
}

static void fill_max_values(row *r, const inputs *in) {
    const bb_attention *a = &in->a;
    for (int64_t j = 0; j < r->seen; j++) {
        r->max_value[j] = 0;
        for (int64_t i = 0; i < a->D; i++)
            r->max_value[j] = fmax(r->max_value[j], fabs((double)in->v[r->kv + j * a->kv_stride + i]));
    }
}

/* What rounding the weights, times their values' scales, to `steps` steps up to the largest adds to an element of the output:
 * half a step for each code. */
static double rounded_weights(const inputs *in, const row *r, int64_t element, double limit, double steps) {
    const bb_attention *a = &in->a;
    double most = 0, codes = 0, scale = 0;
    for (int64_t j = 0; j < r->seen; j++) {
        double largest = r->max_value[j];
        most = fmax(most, r->p[j]);
        scale = fmax(scale, largest / limit);
        if (largest > 0) codes += fabs((double)in->v[r->kv + j * a->kv_stride + element]) / largest * limit;
    }
    return most * scale / (2 * steps) * codes;
}

enum { LAYERS = 3, LAYER = 1 }; /* of a cache; the one that is tested */

static bb_kv open_kv(ops_session *s, bb_kv_type type, int64_t capacity, int64_t Hk, int64_t D) {
    bb_kv kv = {.type = type, .layers = LAYERS, .capacity = capacity, .Hk = Hk, .D = D};
    kv.data = ops_room(s, s->dev->ops->kv_bytes(s->dev, &kv));
    return kv;
}

/* One sequence of a cached case. */
typedef struct cached_case {
    inputs in; /* of B = 1; after store_rows k and v are what the cache holds */
    bb_kv kv;
} cached_case;

enum { MAX_SEQUENCES = 8 };

static bool holds_codes(const bb_kv *kv) { return kv->type != BB_KV_F32; }

/* Sequence b of a case's B: shorter than the first, with fewer rows, and of another type where the types are mixed. */
static cached_case draw_cached(ops_session *s, const int64_t *d, int64_t b) {
    int64_t shape[8], type = d[6] / 1000;
    memcpy(shape, d, sizeof shape);
    shape[0] = 1;
    shape[1] = 1 + (d[1] - 1) * (d[0] - b) / d[0];
    shape[2] = b > 0 ? bb_max(shape[1], d[2] * (b % 3 + 1) / 4) : d[2];
    shape[6] = 1 + d[6] % 1000;
    if (type == 3) type = b % 3;
    cached_case c = {.in = draw(s, shape, ops_normal_f32)};
    c.kv = open_kv(s, type == 2 ? BB_KV_INT6 : type == 1 ? BB_KV_INT8 : BB_KV_F32, c.in.a.Tk + shape[6] - 1, d[4], d[5]);
    return c;
}

static bb_kv_batch batch_of(const cached_case *c, const bb_kv_sequence *sequences, int64_t n) {
    const bb_attention *a = &c->in.a;
    return (bb_kv_batch){.sequences = sequences,
                         .B = n,
                         .H = a->H,
                         .layer = LAYER,
                         .q_stride = a->q_stride,
                         .kv_stride = a->kv_stride,
                         .o_stride = a->o_stride};
}

/* Appends positions from[i] .. to[i]-1 of all sequences that have any, in one call; swapped: keys as values to `layer`. */
static void append_positions(ops_session *s, const cached_case *c, int64_t n, const int64_t *from, const int64_t *to, int layer,
                             bool swapped) {
    bb_kv_sequence sequences[MAX_SEQUENCES];
    int64_t count = 0, rows = 0, first = 0, stride = c->in.a.kv_stride;
    for (int64_t i = 0; i < n; i++) rows += to[i] - from[i];
    float *k = ops_host_f32(s, rows * stride), *v = ops_host_f32(s, rows * stride);
    for (int64_t i = 0; i < n; i++) {
        size_t bytes = (size_t)((to[i] - from[i]) * stride) * sizeof(float);
        memcpy(k + first * stride, c[i].in.k + from[i] * stride, bytes);
        memcpy(v + first * stride, c[i].in.v + from[i] * stride, bytes);
        first += to[i] - from[i];
        if (to[i] > from[i]) sequences[count++] = (bb_kv_sequence){&c[i].kv, from[i], to[i] - from[i]};
    }
    if (count == 0) return;
    bb_kv_batch batch = batch_of(c, sequences, count);
    batch.layer = layer;
    const float *device_k = ops_put_f32(s, k, rows * stride), *device_v = ops_put_f32(s, v, rows * stride);
    s->dev->ops->kv_append(s->dev, &batch, swapped ? device_v : device_k, swapped ? device_k : device_v);
}

/* Appends all positions, in two goes, and something else to the layers beside. From then on the keys and values of the cases are
 * what the caches hold, which is an output. */
static void store_rows(ops_session *s, cached_case *c, int64_t n, ops_outputs *out) {
    int64_t none[MAX_SEQUENCES] = {0}, some[MAX_SEQUENCES], all[MAX_SEQUENCES], elements = 0, at = 0;
    for (int64_t i = 0; i < n; i++) {
        all[i] = c[i].in.a.Tk;
        some[i] = all[i] / 3;
        elements += 2 * all[i] * c[i].kv.Hk * c[i].kv.D;
    }
    append_positions(s, c, n, none, some, LAYER, false);
    append_positions(s, c, n, some, all, LAYER, false);
    append_positions(s, c, n, none, all, LAYER - 1, true);
    append_positions(s, c, n, none, all, LAYER + 1, true);
    float *held = ops_room(s, (size_t)elements * sizeof *held);
    for (int64_t i = 0; i < n; i++) {
        int64_t count = all[i] * c[i].kv.Hk * c[i].kv.D, part = all[i] / 2, width = c[i].kv.Hk * c[i].kv.D;
        float *k = held + at, *v = k + count;
        s->dev->ops->kv_unpack(s->dev, k, v, &c[i].kv, LAYER, 0, part);
        s->dev->ops->kv_unpack(s->dev, k + part * width, v + part * width, &c[i].kv, LAYER, part, all[i] - part);
        at += 2 * count;
    }
    const float *values = ops_get_f32(s, held, elements);
    ops_out(out, "held", values, elements, 0, NULL);
    for (int64_t i = 0; i < n; i++) {
        const bb_attention *a = &c[i].in.a;
        int64_t width = a->Hk * a->D;
        for (int64_t t = 0; t < a->Tk; t++) {
            memcpy(c[i].in.k + t * a->kv_stride, values + t * width, (size_t)width * sizeof(float));
            memcpy(c[i].in.v + t * a->kv_stride, values + (a->Tk + t) * width, (size_t)width * sizeof(float));
        }
        values += 2 * a->Tk * width;
    }
}

/* What o may be off by. */
static void bound_cached(ops_session *s, double *bound, const cached_case *c) {
    const bb_attention *a = &c->in.a;
    bool codes = holds_codes(&c->kv), six = c->kv.type == BB_KV_INT6;
    double steps = six ? 16256 : 32767; /* 14 bits and 15 */
    row r = row_for(s, a);
    for (int64_t i = 0; i < c->in.rows; i++) {
        fill_row(&r, &c->in, 0, i / a->Tq, i % a->Tq, NULL, NULL);
        if (codes) fill_max_values(&r, &c->in);
        double score = r.score + (codes ? rounded_query(&c->in, &r, steps) + 4 * U_F32 : 0);
        for (int64_t j = 0; j < a->D; j++) {
            bound[r.o + j] = 3 * score * r.weight[j];
            if (codes) bound[r.o + j] += rounded_weights(&c->in, &r, j, six ? 31 : 127, steps);
        }
    }
}

/* d as of draw, but B sequences of different lengths, the first of them Tq and Tk long, and thousands of the extra rows say the
 * type: 0 F32, 1 INT8, 2 INT6, 3 all three. Each sequence must get the same bits alone. */
static void attention_cached(ops_session *s, const int64_t *d, ops_outputs *out) {
    cached_case c[MAX_SEQUENCES];
    bb_kv_sequence sequences[MAX_SEQUENCES];
    int64_t n = d[0], q_count = 0, o_count = 0;
    for (int64_t b = 0; b < n; b++) {
        c[b] = draw_cached(s, d, b);
        const bb_attention *a = &c[b].in.a;
        sequences[b] = (bb_kv_sequence){&c[b].kv, a->Tk - a->Tq, a->Tq};
        q_count += c[b].in.q_count;
        o_count += c[b].in.o_count;
    }
    store_rows(s, c, n, out);
    float *q = ops_host_f32(s, q_count), *before = ops_host_f32(s, o_count);
    double *bound = ops_host(s, (size_t)o_count * sizeof *bound);
    int64_t q_at = 0, o_at = 0;
    for (int64_t b = 0; b < n; b++) {
        memcpy(q + q_at, c[b].in.q, (size_t)c[b].in.q_count * sizeof *q);
        memcpy(before + o_at, c[b].in.d_o, (size_t)c[b].in.o_count * sizeof *before);
        if (ops_is_ref(s)) bound_cached(s, bound + o_at, &c[b]);
        q_at += c[b].in.q_count;
        o_at += c[b].in.o_count;
    }
    float *device_q = ops_put_f32(s, q, q_count), *o = ops_put_f32(s, before, o_count),
          *alone = ops_put_f32(s, before, o_count);
    bb_kv_batch batch = batch_of(c, sequences, n);
    s->dev->ops->attention_cached(s->dev, o, device_q, &batch);
    const float *result = ops_get_f32(s, o, o_count);
    ops_out(out, "o", result, o_count, 0, bound);
    q_at = o_at = 0;
    for (int64_t b = 0; b < n && n > 1; b++) {
        batch = batch_of(c, &sequences[b], 1);
        s->dev->ops->attention_cached(s->dev, alone + o_at, device_q + q_at, &batch);
        q_at += c[b].in.q_count;
        o_at += c[b].in.o_count;
    }
    if (n > 1) assert_memory_equal(ops_get_f32(s, alone, o_count), result, (size_t)o_count * sizeof(float));
}

/* Few queries at once get, bit for bit, what each gets alone. */
static void few_queries_are_each_as_alone(void **state) {
    (void)state;
    enum { T = 600, H = 6, HK = 2, D = 20, WIDTH = (H + 2 * HK) * D };
    const int64_t step = ops_emulated() ? 7 : 1;
    for (int type = BB_KV_INT6; type <= BB_KV_F32; type++) {
        ops_session s = ops_begin(ops_tested[1], 1);
        float *qkv = ops_put_f32(&s, ops_normal_f32(&s, T * WIDTH, 1.0), T * WIDTH);
        float *all = ops_room(&s, BB_SMALL_BATCH_ROWS * H * D * sizeof *all), *one = ops_room(&s, H * D * sizeof *one);
        bb_kv kv = open_kv(&s, (bb_kv_type)type, T, HK, D);
        bb_kv_sequence sequence = {.kv = &kv, .length = 0, .rows = T};
        bb_kv_batch batch = {&sequence, 1, H, LAYER, WIDTH, WIDTH, H * D};
        ops_tested[1]->ops->kv_append(ops_tested[1], &batch, qkv + H * D, qkv + (H + HK) * D);
        for (int64_t n = 2; n <= BB_SMALL_BATCH_ROWS; n += step) {
            int64_t first = T - n - (n % 3 ? 0 : 88); /* also across the 512th key */
            sequence = (bb_kv_sequence){.kv = &kv, .length = first, .rows = n};
            ops_tested[1]->ops->attention_cached(ops_tested[1], all, qkv + first * WIDTH, &batch);
            for (int64_t t = 0; t < n; t++) {
                sequence = (bb_kv_sequence){.kv = &kv, .length = first + t, .rows = 1};
                ops_tested[1]->ops->attention_cached(ops_tested[1], one, qkv + (first + t) * WIDTH, &batch);
                assert_memory_equal(ops_get_f32(&s, one, H * D), ops_get_f32(&s, all + t * H * D, H * D),
                                    H * D * sizeof(float));
                for (int i = 0; i < 2; i++) free(s.host[--s.host_count]);
            }
        }
        ops_end(&s);
    }
}

/* One query a time over a growing cache is the same as all of them at once, but for the order of sums. */
static void decoding_equals_the_whole(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        bb_device *dev = which ? ops_tested[1] : ops_ref;
        ops_session s = ops_begin(dev, 1);
        enum { T = 70, H = 6, HK = 2, D = 20 };
        int64_t width = (H + 2 * HK) * D, n = T * width;
        float *qkv = ops_put_f32(&s, ops_normal_f32(&s, n, 1.0), n);
        float *all = ops_room(&s, T * H * D * sizeof *all), *one = ops_room(&s, T * H * D * sizeof *one);
        const float *k = qkv + H * D, *v = k + HK * D;
        bb_attention a = {1, T, T, H, HK, D, width, width, T * width, H * D};
        dev->ops->attention_forward(dev, all, NULL, NULL, (bb_qkv){qkv, k, v}, &a);
        a.Tq = 1;
        for (a.Tk = 1; a.Tk <= T; a.Tk++) {
            int64_t at = a.Tk - 1;
            dev->ops->attention_forward(dev, one + at * H * D, NULL, NULL, (bb_qkv){qkv + at * width, k, v}, &a);
        }
        const float *x = ops_get_f32(&s, all, T * H * D), *y = ops_get_f32(&s, one, T * H * D);
        double allowed = which ? 3 * ((D + 8 + T) * U_F32 * (1 + 4 * sqrt(D)) + 4e-7) * 4 : 0; /* |q|, |k|, |v| < 4 */
        for (int i = 0; i < T * H * D; i++) ops_assert_near((double)y[i], (double)x[i], allowed, "o", i);
        ops_end(&s);
    }
}

/* Where a backward pass follows, too: an element that is not finite shows in every output that depends on it. */
static void what_is_not_finite_is_seen(void **state) {
    (void)state;
    enum { T = 300, D = 34, WIDTH = 3 * D, BAD = 280, COLUMN = 33 };
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int part = 0; part < 3; part++)
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            ops_session s = ops_begin(ops_tested[1], 1);
            float *host = ops_normal_f32(&s, T * WIDTH, 1.0);
            host[BAD * WIDTH + part * D + COLUMN] = bad[i];
            float *qkv = ops_put_f32(&s, host, T * WIDTH), *o = ops_room(&s, sizeof *o * T * D);
            float *lse = ops_room(&s, sizeof *lse * T);
            void *kept = ops_put_act(&s, host, T * D);
            bb_attention a = {1, T, T, 1, 1, D, WIDTH, WIDTH, T * WIDTH, D};
            ops_tested[1]->ops->attention_forward(ops_tested[1], o, kept, lse, (bb_qkv){qkv, qkv + D, qkv + 2 * D}, &a);
            const float *y = ops_get_f32(&s, o, T * D);
            for (int t = BAD; t < T; t++) {
                bool sees = part > 0 || t == BAD; /* a query is its own row's */
                if (part == 2)                    /* a value its own column's */
                    assert_true(!isfinite(y[t * D + COLUMN]));
                else if (sees && isnan(bad[i]))
                    assert_true(isnan(y[t * D]));
                else if (part == 0 && sees)
                    assert_true(!isfinite(y[t * D]));
            }
            for (int j = 0; j < 256 * D; j++) assert_true(isfinite(y[j])); /* an earlier run of keys */
            ops_end(&s);
        }
}

/* And in the gradients. */
static void a_gradient_that_is_no_number_is_seen(void **state) {
    (void)state;
    enum { T = 300, D = 34, N = T * D, BAD = 140, COLUMN = 33 };
    for (int part = 0; part < 4; part++) { /* q, k, v, do */
        ops_session s = ops_begin(ops_tested[1], 1);
        bb_attention a = {1, T, T, 1, 1, D, D, D, N, D};
        float *host[4], *lse = ops_room(&s, sizeof *lse * T), *o32 = ops_room(&s, sizeof *o32 * N);
        void *in[4], *out[3], *o = ops_put_act(&s, ops_normal(&s, N, 1.0), N);
        for (int i = 0; i < 4; i++) host[i] = ops_normal(&s, N, 1.0);
        ops_tested[1]->ops->attention_forward(
            ops_tested[1], o32, o, lse,
            (bb_qkv){ops_put_f32(&s, host[0], N), ops_put_f32(&s, host[1], N), ops_put_f32(&s, host[2], N)}, &a);
        host[part][BAD * D + COLUMN] = NAN;
        for (int i = 0; i < 4; i++) in[i] = ops_put_act(&s, host[i], N);
        for (int i = 0; i < 3; i++) out[i] = ops_put_act(&s, host[i], N);
        ops_tested[1]->ops->attention_backward(ops_tested[1], (bb_qkv_gradient){out[0], out[1], out[2]}, in[3],
                                               (bb_qkv){in[0], in[1], in[2]}, o, lse, &a);
        const float *dq = ops_get_act(&s, out[0], N), *dk = ops_get_act(&s, out[1], N), *dv = ops_get_act(&s, out[2], N);
        bool of_query = part == 0 || part == 3;
        for (int t = BAD; t < (of_query ? BAD + 1 : T); t++) assert_true(isnan(dq[t * D]));
        for (int j = of_query ? 0 : BAD; j <= BAD; j++) assert_true(isnan(dk[j * D]));
        for (int j = 0; j <= BAD && of_query; j++) assert_true(isnan(dv[j * D + COLUMN]));
        for (int t = 0; t < BAD; t++) assert_true(isfinite(dq[t * D])); /* none of these sees it */
        for (int j = 256; j < T; j++) assert_true(isfinite(dk[j * D])); /* another run of keys */
        ops_end(&s);
    }
}

/* d: B, Tq, Tk, H, Hk, D, extra, size of q in tenths */
static const ops_case cases[] = {
    {"attention_forward", attention_forward, {1, 1, 1, 1, 1, 2, 0, 10}},
    {"attention_forward", attention_forward, {3, 5, 5, 1, 1, 2, 0, 10}},
    {"attention_forward", attention_forward, {1, 63, 63, 2, 2, 20, 0, 10}},
    {"attention_forward", attention_forward, {2, 64, 64, 1, 1, 64, 0, 10}},
    {"attention_forward", attention_forward, {1, 65, 65, 4, 1, 128, 0, 10}},
    {"attention_forward", attention_forward, {1, 130, 130, 6, 2, 20, 0, 30}},
    {"attention_forward", attention_forward, {2, 129, 129, 2, 2, 64, 0, 100}},
    {"attention_forward", attention_forward, {1, 300, 300, 1, 1, 32, 0, 10}},
    {"attention_forward", attention_forward, {1, 3, 40, 2, 2, 18, 0, 10}},
    {"attention_forward", attention_forward, {2, 66, 131, 4, 2, 64, 5, 10}},
    {"attention_forward", attention_forward, {1, 1, 1, 4, 2, 64, 7, 10}},
    {"attention_forward", attention_forward, {1, 1, 77, 4, 2, 64, 7, 10}},
    {"attention_forward", attention_forward, {1, 1, 257, 12, 12, 128, 1, 10}},
    {"attention_forward", attention_forward, {3, 1, 130, 6, 1, 20, 30, 30}},
    {"attention_forward", attention_forward, {1, 1, 1030, 8, 2, 2, 3, 10}},
    {"attention_forward", attention_forward, {1, 2, 65, 8, 8, 130, 3, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 1, 1, 1, 1, 2, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {3, 5, 5, 1, 1, 2, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 17, 17, 3, 1, 130, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 63, 63, 2, 2, 20, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {2, 64, 64, 1, 1, 64, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 65, 65, 4, 1, 128, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 130, 130, 6, 2, 20, 0, 30}},
    {"attention_forward_kept", attention_forward_kept, {2, 129, 129, 2, 2, 64, 0, 100}},
    {"attention_forward_kept", attention_forward_kept, {1, 300, 300, 1, 1, 32, 0, 10}},
    {"attention_forward_kept, large", attention_forward_kept, {1, 700, 700, 1, 1, 64, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {2, 66, 131, 4, 2, 64, 5, 10}},
    {"attention_forward_kept, large", attention_forward_kept, {2, 520, 530, 4, 2, 20, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 3, 40, 2, 2, 18, 0, 10}},
    {"attention_forward_kept", attention_forward_kept, {1, 40, 41, 1, 1, 34, 0, 10}},
    {"attention_forward_ternary", attention_forward_ternary, {1, 17, 17, 3, 1, 130, 0, 10}},
    {"attention_forward_ternary", attention_forward_ternary, {2, 64, 64, 1, 1, 64, 0, 10}},
    {"attention_forward_ternary", attention_forward_ternary, {1, 130, 130, 6, 2, 20, 0, 20}},
    {"attention_forward_ternary, large", attention_forward_ternary, {1, 700, 700, 1, 1, 64, 0, 10}},
    {"attention_forward_ternary", attention_forward_ternary, {2, 66, 131, 4, 2, 64, 5, 10}},
    {"attention_forward_ternary", attention_forward_ternary, {1, 40, 41, 1, 1, 34, 0, 10}},
    {"attention_cached", attention_cached, {1, 1, 1, 1, 1, 2, 1000, 10}},
    {"attention_cached", attention_cached, {1, 1, 77, 4, 2, 64, 1007, 10}},
    {"attention_cached, large", attention_cached, {1, 1, 1630, 8, 2, 2, 1503, 10}},
    {"attention_cached, large", attention_cached, {1, 1, 257, 12, 12, 128, 1001, 10}},
    {"attention_cached, large", attention_cached, {1, 5, 600, 4, 4, 130, 1000, 30}},
    {"attention_cached", attention_cached, {1, 16, 40, 3, 1, 18, 1002, 100}},
    {"attention_cached", attention_cached, {1, 17, 40, 3, 1, 18, 1002, 100}},
    {"attention_cached, large", attention_cached, {1, 130, 300, 2, 2, 64, 1005, 10}},
    {"attention_cached", attention_cached, {1, 70, 70, 4, 2, 20, 1000, 10}},
    {"attention_cached, large", attention_cached, {1, 40, 1600, 4, 2, 24, 1502, 10}},
    {"attention_cached", attention_cached, {1, 1, 1, 1, 1, 2, 2000, 10}},
    {"attention_cached", attention_cached, {1, 1, 77, 4, 2, 64, 2007, 10}},
    {"attention_cached", attention_cached, {1, 1, 1630, 8, 2, 2, 2503, 10}},
    {"attention_cached", attention_cached, {1, 1, 257, 12, 12, 128, 2001, 10}},
    {"attention_cached, large", attention_cached, {1, 2, 258, 12, 12, 128, 2001, 10}},
    {"attention_cached, large", attention_cached, {1, 3, 259, 12, 12, 128, 2001, 10}},
    {"attention_cached, large", attention_cached, {1, 5, 600, 4, 4, 130, 2000, 30}},
    {"attention_cached", attention_cached, {1, 16, 40, 3, 1, 18, 2002, 100}},
    {"attention_cached", attention_cached, {1, 17, 40, 3, 1, 18, 2002, 100}},
    {"attention_cached, large", attention_cached, {1, 130, 300, 2, 2, 64, 2005, 10}},
    {"attention_cached", attention_cached, {1, 70, 70, 4, 2, 20, 2000, 10}},
    {"attention_cached, large", attention_cached, {1, 40, 1600, 4, 2, 24, 2502, 10}},
    {"attention_cached", attention_cached, {1, 20, 90, 2, 1, 200, 2002, 10}},
    {"attention_cached", attention_cached, {1, 1, 77, 4, 2, 64, 7, 10}},
    {"attention_cached", attention_cached, {1, 20, 77, 4, 2, 30, 7, 10}},
    {"attention_cached", attention_cached, {3, 1, 77, 4, 2, 64, 7, 10}},
    {"attention_cached", attention_cached, {3, 1, 77, 4, 2, 64, 1007, 10}},
    {"attention_cached", attention_cached, {3, 1, 77, 4, 2, 64, 2007, 10}},
    {"attention_cached, large", attention_cached, {2, 4, 600, 12, 12, 128, 2000, 10}},
    {"attention_cached, large", attention_cached, {2, 16, 530, 4, 4, 130, 1001, 30}},
    {"attention_cached, large", attention_cached, {8, 5, 1600, 6, 2, 20, 3500, 10}},
    {"attention_cached, large", attention_cached, {7, 40, 300, 3, 1, 18, 3002, 30}},
    {"attention_cached", attention_cached, {4, 70, 140, 4, 2, 34, 2001, 10}},
    {"attention_cached", attention_cached, {5, 24, 200, 2, 1, 200, 1003, 10}},
    {"attention_cached", attention_cached, {4, 30, 90, 2, 2, 2, 4, 10}},
    {"attention_backward", attention_backward, {1, 1, 1, 1, 1, 2, 0, 10}},
    {"attention_backward", attention_backward, {3, 5, 5, 1, 1, 2, 0, 10}},
    {"attention_backward", attention_backward, {1, 63, 63, 2, 2, 20, 0, 10}},
    {"attention_backward", attention_backward, {2, 64, 64, 1, 1, 64, 0, 10}},
    {"attention_backward", attention_backward, {1, 65, 65, 4, 1, 128, 0, 10}},
    {"attention_backward", attention_backward, {1, 130, 130, 6, 2, 20, 0, 30}},
    {"attention_backward", attention_backward, {2, 129, 129, 2, 2, 64, 0, 100}},
    {"attention_backward", attention_backward, {1, 300, 300, 1, 1, 32, 0, 10}},
    {"attention_backward", attention_backward, {1, 17, 17, 3, 1, 130, 0, 10}},
    {"attention_backward, large", attention_backward, {1, 1100, 1100, 1, 1, 20, 0, 10}},
    {"attention_backward", attention_backward, {2, 66, 131, 4, 2, 64, 5, 10}},
    {"attention_backward_ternary", attention_backward_ternary, {3, 5, 5, 1, 1, 2, 0, 10}},
    {"attention_backward_ternary", attention_backward_ternary, {2, 64, 64, 1, 1, 64, 0, 10}},
    {"attention_backward_ternary", attention_backward_ternary, {1, 130, 130, 6, 2, 20, 0, 20}},
    {"attention_backward_ternary", attention_backward_ternary, {1, 17, 17, 3, 1, 130, 0, 10}},
    {"attention_backward_ternary, large", attention_backward_ternary, {1, 600, 600, 2, 1, 34, 0, 10}},
    {"attention_backward_ternary", attention_backward_ternary, {2, 66, 131, 4, 2, 64, 5, 10}},
    {"attention_backward_ternary", attention_backward_ternary, {1, 300, 303, 1, 1, 64, 0, 10}},
};

static bool same_attention(const bb_cpu_kernels *a, const bb_cpu_kernels *b) {
    return a->elementwise == b->elementwise && a->attention_f32 == b->attention_f32 &&
           a->attention_codes == b->attention_codes && a->attention_int6 == b->attention_int6 &&
           a->attention_training == b->attention_training && a->attention_backward == b->attention_backward;
}

int main(int argc, char **argv) {
    const struct CMUnitTest extra[] = {
        cmocka_unit_test(decoding_equals_the_whole), cmocka_unit_test(few_queries_are_each_as_alone),
        cmocka_unit_test(what_is_not_finite_is_seen), cmocka_unit_test(a_gradient_that_is_no_number_is_seen)};
    return ops_compare_all(argc, argv, same_attention, cases, sizeof cases / sizeof *cases, extra,
                           sizeof extra / sizeof *extra);
}
