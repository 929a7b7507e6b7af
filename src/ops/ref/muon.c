// SPDX-License-Identifier: MIT
#include <math.h>
#include <string.h>

#include "ops/ref/ref.h"

/* c (m,n) = a (m,k) b (k,n) */
static void multiply(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++) {
        memset(c + i * n, 0, (size_t)n * sizeof *c);
        for (int64_t l = 0; l < k; l++)
            for (int64_t j = 0; j < n; j++) c[i * n + j] += a[i * k + l] * b[l * n + j];
    }
}

/* x (m,n), m <= n; scratch: see bb_ref_muon_scratch. */
static void orthogonalize(double *x, int64_t m, int64_t n, int iterations, double *scratch) {
    double *transposed = scratch, *gram = transposed + m * n, *squared = gram + m * m;
    double norm = 0;
    for (int64_t i = 0; i < m * n; i++) norm += x[i] * x[i];
    norm = sqrt(norm) + BB_MUON_EPS;
    for (int64_t i = 0; i < m * n; i++) x[i] /= norm;
    for (int iteration = 0; iteration < iterations; iteration++) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) transposed[j * m + i] = x[i * n + j];
        multiply(gram, x, transposed, m, m, n);
        multiply(squared, gram, gram, m, m, m);
        for (int64_t i = 0; i < m * m; i++) gram[i] = BB_MUON_B * gram[i] + BB_MUON_C * squared[i];
        for (int64_t i = 0; i < m; i++) gram[i * m + i] += BB_MUON_A;
        multiply(transposed, gram, x, m, n, m);
        memcpy(x, transposed, (size_t)(m * n) * sizeof *x);
    }
}

size_t bb_ref_muon_scratch(bb_device *dev, int64_t N, int64_t K) {
    (void)dev;
    int64_t m = N < K ? N : K;
    return (size_t)(2 * N * K + 2 * m * m) * sizeof(double);
}

static void update(bb_device *dev, const bb_muon_matrix *matrix, const bb_muon *h) {
    int64_t N = matrix->N, K = matrix->K;
    float *p = matrix->p;
    const float *g = matrix->g;
    bb_bf16 *m = matrix->m;
    double *x = bb_ref_scratch(dev, bb_ref_muon_scratch(dev, N, K) / sizeof *x);
    double mu = h->momentum, scale = h->lr * bb_muon_scale(N, K);
    bool tall = N > K; /* x then holds the transpose */
    if (!x) return;
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            double gradient = h->grad_scale * (double)g[n * K + k];
            double b = mu * (double)bb_f32_from_bf16(m[n * K + k]) + (1 - mu) * gradient;
            m[n * K + k] = bb_bf16_from_f32((float)b);
            x[tall ? k * N + n : n * K + k] = (1 - mu) * gradient + mu * b;
        }
    orthogonalize(x, tall ? K : N, tall ? N : K, h->iterations, x + N * K);
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            double weight = (double)p[n * K + k] * (1 - h->lr * h->weight_decay);
            p[n * K + k] = (float)(weight - scale * x[tall ? k * N + n : n * K + k]);
        }
}

void bb_ref_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h) {
    for (int64_t i = 0; i < count; i++) update(dev, &matrices[i], h);
}
