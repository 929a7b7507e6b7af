// SPDX-License-Identifier: MIT
/* Muon's Newton-Schulz iteration on the cpu. Every iteration multiplies X by a polynomial of its Gram matrix A = X XT. All these
 * are symmetric, commute, and are small (m, m), m the shorter side of X. So a run of iterations multiplies the polynomials
 * first, follows A along (A' = P A P), and applies the product Q to X once at its end:
 *     P = a I + b A + c A^2;   Q = P Q;   A = P A P;   ...;   X = Q X
 * of which each product but the last and the first Gram matrix costs m^3 multiplications at half work, where an iteration on X
 * costs 3 m^2 n + m^3. What is lost is that A no longer follows the roundings of X. An error of A grows up to a^2 = 12 times in
 * an iteration; in f32 five of them are one run, in bf16 a run is shorter, and A is computed anew for the next. */
#ifndef BB_OPS_CPU_MUON_H
#define BB_OPS_CPU_MUON_H

#include "ops/cpu/device/cpu.h"

/* One matrix and its scratch; m <= n. */
typedef struct bb_muon_work {
    bb_device *dev;
    int64_t m, n;
    bool tall;            /* x is (n, m); otherwise (m, n) */
    float *x, *y;         /* the matrix, and room for another of its size */
    float *a, *p, *q, *t; /* (m, m): A, P, Q, and what is computed */
    void *room;           /* of the set */
} bb_muon_work;

enum { BB_MUON_RUNS = 2, BB_MUON_BLOCK = 64 };

/* Products at the best rate of an instruction set. A symmetric result needs its lower triangle only. */
typedef struct bb_muon_set {
    int runs[BB_MUON_RUNS]; /* iterations; together BB_MUON_ITERATIONS */
    /* y[column, row] = x[row, column], up to BB_MUON_BLOCK of each; strides between rows in elements. NULL: a plain loop */
    void (*transpose)(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t rows, int64_t columns);
    size_t (*room)(bb_device *dev, int64_t m, int64_t n);
    /* a = X XT, or XT X if tall. May change y. */
    void (*gram)(const bb_muon_work *w);
    /* out = left right, of two symmetric matrices that commute */
    void (*multiply)(const bb_muon_work *w, float *out, const float *left, const float *right);
    /* x = q x, or x q if tall. May exchange x and y. */
    void (*apply)(bb_muon_work *w);
} bb_muon_set;

extern const bb_muon_set bb_muon_gemm; /* f32, on oneDNN */
#if defined(__x86_64__)
extern const bb_muon_set bb_muon_dot; /* bf16, for processors with AVX-512 BF16 */
#endif

/* y (columns, rows) = the transpose of x (rows, columns) */
void bb_muon_transpose(bb_device *dev, float *y, const float *x, int64_t rows, int64_t columns);

#endif
