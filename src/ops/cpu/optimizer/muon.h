// SPDX-License-Identifier: MIT
/* Muon's Newton-Schulz iteration on the cpu. Every iteration multiplies X by a polynomial of its Gram matrix A = X XT. All these
 * are symmetric, commute, and are small (m, m), m the shorter side of X. So a run of iterations multiplies the polynomials
 * first, follows A along (A' = P A P), and applies the product Q to X once at its end:
 *     P = a I + b A + c A^2;   Q = P Q;   A = P A P;   ...;   X = Q X
 * of which each product but the last and the first Gram matrix costs m^3 multiplications at half work, where an iteration on X
 * costs 3 m^2 n + m^3. What is lost is that A no longer follows the roundings of X. An error of A grows up to a^2 = 12 times in
 * an iteration; in f32 five of them are one run, in bf16 a run is shorter, and A is computed anew for the next.
 *
 * Small matrices are computed side by side, each by one thread, since a product of theirs takes less time than it takes to wake
 * threads; a large one by all threads. A sum has the same order in either case. */
#ifndef BB_OPS_CPU_MUON_H
#define BB_OPS_CPU_MUON_H

#include "ops/cpu/device/cpu.h"

enum { BB_MUON_RUNS = 2 };

/* The matrices (m, m). */
typedef enum bb_muon_square { BB_MUON_GRAM, BB_MUON_P, BB_MUON_Q, BB_MUON_T, BB_MUON_SQUARES } bb_muon_square;

/* What a square will be in the products to come. */
enum { BB_MUON_LEFT = 1, BB_MUON_RIGHT = 2 };

/* One matrix, its scratch, and the group of threads that compute it; m <= n. */
typedef struct bb_muon_work {
    bb_device *dev;
    int64_t m, n;
    bool tall;               /* x is (n, m); otherwise (m, n) */
    float *x;                /* the matrix */
    void *room;              /* of the set */
    int of[BB_MUON_SQUARES]; /* which of the set's matrices (m, m) each square is now */
    int thread, threads;
} bb_muon_work;

/* Products at the best rate of an instruction set. Each function is called by all threads of a group, and returns when all of
 * its result is there. */
typedef struct bb_muon_set {
    int runs[BB_MUON_RUNS]; /* iterations; together BB_MUON_ITERATIONS */
    size_t (*room)(int64_t m, int64_t n);
    /* Called once per shape, outside of parallel regions; NULL: nothing to prepare. */
    void (*prepare)(const bb_muon_work *w);
    void (*gram)(const bb_muon_work *w); /* A = X XT, or XT X if tall; it will be left and right */
    /* P = a I + b A + c A^2.  uses: of P */
    void (*polynomial)(const bb_muon_work *w, int uses);
    /* out = left right, which commute; out is neither.  uses: of out; A is always both */
    void (*multiply)(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses);
    void (*apply)(bb_muon_work *w); /* x = Q x, or x Q if tall */
} bb_muon_set;

extern const bb_muon_set bb_muon_gemm; /* f32, on oneDNN */
#if defined(__x86_64__)
extern const bb_muon_set bb_muon_bf16; /* for processors with AVX-512 BF16 */
#endif

/* Until all threads of the group are here. */
void bb_muon_wait(const bb_muon_work *w);

#endif
