// SPDX-License-Identifier: MIT
/* Muon's update of one matrix, compared with ref. */
#include "ops_compare.h"

/* The error of an update of a matrix whose singular values are within a factor of ten, in parts of its norm. In f32, dozens of
 * products each add a few U_F32, and errors of the Gram matrix grow up to 12 times in each of the first iterations. In bf16, factors
 * are off by half of U_BF16 on average, all alike where singular values are, and a chain of products has about thirty of them. In
 * int16 they are off by a fourth of a code, where rows have 2,895 up to their largest element beside the diagonal. */
static double update_error(void) {
    int bits = muon_bits(ops_tested[0]);
    return bits == 8 ? 16 * U_BF16 : bits == 12 ? 2 * U_BF16 : 2000 * U_F32;
}

/* N, K, whether there is momentum from before, iterations (0: 5). Singular values that are small beside others would be lost in the
 * rounding of these: a multiple of the identity keeps them apart from 0. */
static void muon(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1], n = N * K, shorter = N < K ? N : K;
    const bb_muon h = {
        .lr = 0.02, .weight_decay = 0.1, .momentum = d[2] ? 0.95 : 0, .grad_scale = 0.37, .iterations = d[3] ? (int)d[3] : 5};
    float *p0 = ops_normal_f32(s, n, 1.0), *g0 = ops_normal_f32(s, n, 1.0), *m0 = ops_normal_f32(s, n, 0.3);
    for (int64_t i = 0; i < shorter; i++) {
        g0[i * K + i] += 4 * sqrtf((float)(N + K));
        m0[i * K + i] += 2 * sqrtf((float)(N + K));
    }
    bb_bf16 *momentum = ops_host(s, (size_t)n * sizeof *momentum);
    for (int64_t i = 0; i < n && d[2]; i++) momentum[i] = bb_bf16_from_f32(m0[i]);
    float *p = ops_put_f32(s, p0, n);
    bb_bf16 *m = ops_put(s, momentum, (size_t)n * sizeof *m);
    s->dev->ops->muon_step(s->dev, &(bb_muon_matrix){p, ops_put_f32(s, g0, n), m, N, K}, 1, &h);

    float *update = ops_get_f32(s, p, n), *values = ops_host_f32(s, n);
    const bb_bf16 *after = ops_get(s, m, (size_t)n * sizeof *after);
    double *p_bound = ops_host(s, (size_t)n * sizeof *p_bound), *m_bound = ops_host(s, (size_t)n * sizeof *m_bound);
    double norm = sqrt((double)shorter) * bb_muon_scale(N, K); /* of the update, when singular values end near 1 */
    for (int64_t i = 0; i < n; i++) {
        double kept = (double)p0[i] * (1 - h.lr * h.weight_decay);
        update[i] = (float)(((double)update[i] - kept) / h.lr);
        p_bound[i] = update_error() * norm + 2 * U_F32 * fabs(kept) / h.lr;
        values[i] = bb_f32_from_bf16(after[i]);
        /* a sum in f32 may fall to the other side of where bf16 rounds */
        m_bound[i] = 2 * U_BF16 * fabs((double)values[i]) + 1e-30;
    }
    ops_out(out, "update", update, n, 0, p_bound);
    out->of[out->count - 1].by_norm = update_error() + 8 * U_F32 / h.lr * sqrt((double)n) / norm;
    ops_out(out, "momentum", values, n, 0, m_bound);
    out->of[out->count - 1].by_norm = U_BF16;
}

/* No gradient yet: nothing but decay. */
static void zero_gradient(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1], n = N * K;
    const bb_muon h = {.lr = 0.02, .weight_decay = 0.1, .momentum = 0.95, .grad_scale = 1, .iterations = 5};
    float *p = ops_put_f32(s, ops_normal_f32(s, n, 1.0), n), *g = ops_room(s, (size_t)n * sizeof *g);
    bb_bf16 *m = ops_room(s, (size_t)n * sizeof *m);
    s->dev->ops->muon_step(s->dev, &(bb_muon_matrix){p, g, m, N, K}, 1, &h);
    ops_out(out, "p", ops_get_f32(s, p, n), n, 2 * U_F32, NULL);
}

/* All elements as large as the largest: the largest sums of products that there are. */
static void constant_gradient(ops_session *s, const int64_t *d, ops_outputs *out) {
    int64_t N = d[0], K = d[1], n = N * K;
    const bb_muon h = {.lr = 1, .grad_scale = 1, .iterations = 5};
    float *g = ops_host_f32(s, n), *p = ops_room(s, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) g[i] = 1;
    bb_bf16 *m = ops_room(s, (size_t)n * sizeof *m);
    s->dev->ops->muon_step(s->dev, &(bb_muon_matrix){p, ops_put_f32(s, g, n), m, N, K}, 1, &h);
    ops_out(out, "update", ops_get_f32(s, p, n), n, 4 * update_error(), NULL);
}

static const ops_case cases[] = {
    {"muon", muon, {1, 1}},
    {"muon", muon, {1, 7, 1}},
    {"muon", muon, {7, 1, 1}},
    {"muon", muon, {20, 33, 1}},
    {"muon", muon, {33, 20}},
    {"muon", muon, {48, 48, 1}},
    {"muon", muon, {65, 97, 1}},
    {"muon", muon, {97, 193, 1}},
    {"muon", muon, {193, 97}},
    {"muon", muon, {130, 130, 1}},
    {"muon", muon, {384, 100, 1}},
    {"muon", muon, {100, 700}},
    {"muon", muon, {257, 300, 1}},
    {"muon", muon, {200, 64, 1}},
    {"muon", muon, {257, 300, 1, 1}},
    {"muon", muon, {200, 64, 1, 2}},
    {"muon", muon, {64, 200, 1, 3}},
    {"muon", muon, {257, 300, 1, 3}},
    {"muon", muon, {7, 1, 1, 3}},
    {"muon", muon, {97, 193, 1, 4}},
    {"constant_gradient", constant_gradient, {40, 700}},
    {"constant_gradient", constant_gradient, {700, 40}},
    {"zero_gradient", zero_gradient, {5, 9}},
    {"zero_gradient", zero_gradient, {96, 64}},
};

/* Matrices that are updated together, side by side, come out as each of them does alone, divided over the threads. */
static void matrices_together_are_as_each_alone(void **state) {
    (void)state;
    enum { COUNT = 5 };
    static const int64_t shapes[COUNT][2] = {{70, 130}, {1, 9}, {200, 64}, {64, 64}, {33, 20}};
    const bb_muon h = {.lr = 0.02, .weight_decay = 0.1, .momentum = 0.95, .grad_scale = 0.5, .iterations = 5};
    ops_session s = ops_begin(ops_tested[1], 1);
    bb_muon_matrix together[COUNT], alone[COUNT];
    for (int i = 0; i < COUNT; i++) {
        int64_t N = shapes[i][0], K = shapes[i][1], n = N * K;
        float *p = ops_normal_f32(&s, n, 1.0), *g = ops_put_f32(&s, ops_normal_f32(&s, n, 1.0), n);
        together[i] = (bb_muon_matrix){ops_put_f32(&s, p, n), g, ops_room(&s, (size_t)n * sizeof(bb_bf16)), N, K};
        alone[i] = (bb_muon_matrix){ops_put_f32(&s, p, n), g, ops_room(&s, (size_t)n * sizeof(bb_bf16)), N, K};
        s.dev->ops->muon_step(s.dev, &alone[i], 1, &h);
    }
    s.dev->ops->muon_step(s.dev, together, COUNT, &h);
    for (int i = 0; i < COUNT; i++) {
        int64_t n = shapes[i][0] * shapes[i][1];
        assert_memory_equal(ops_get_f32(&s, together[i].p, n), ops_get_f32(&s, alone[i].p, n), (size_t)n * sizeof(float));
        assert_memory_equal(ops_get(&s, together[i].m, (size_t)n * sizeof(bb_bf16)),
                            ops_get(&s, alone[i].m, (size_t)n * sizeof(bb_bf16)), (size_t)n * sizeof(bb_bf16));
    }
    ops_end(&s);
}

static bool same_muon(const bb_cpu_kernels *a, const bb_cpu_kernels *b) {
    return a->muon == b->muon && a->muon_blocks == b->muon_blocks;
}

int main(int argc, char **argv) {
    const struct CMUnitTest extra[] = {cmocka_unit_test(matrices_together_are_as_each_alone)};
    return ops_compare_all(argc, argv, same_muon, cases, sizeof cases / sizeof *cases, extra, 1);
}
