// SPDX-License-Identifier: MIT
/* Muon's Newton-Schulz iteration on the cpu. Every iteration multiplies X by a polynomial of its Gram matrix A = X XT. All these
 * are symmetric, commute, and are small (m, m), m the shorter side of X. So a run of iterations multiplies the polynomials
 * first, follows A along (A' = P A P), and applies the product Q to X once at its end:
 *     P = a I + b A + c A^2;   Q = P Q;   A = P A P;   ...;   X = Q X
 * of which each product but the last and the first Gram matrix costs m^3 multiplications at half work, where an iteration on X
 * costs 3 m^2 n + m^3. What is lost is that A no longer follows the roundings of X. An error of A grows up to a^2 = 12 times in
 * an iteration; so a run is short, and A is computed anew for the next.
 *
 * Small matrices are computed side by side, each by one thread, since a product of theirs takes less time than it takes to wake
 * threads; a large one by all threads. A sum has the same order in either case. */
#ifndef BB_OPS_CPU_MUON_PRODUCTS_H
#define BB_OPS_CPU_MUON_PRODUCTS_H

#include "ops/cpu/device/cpu.h"

/* The matrices (m, m). */
typedef enum bb_muon_square { BB_MUON_GRAM, BB_MUON_P, BB_MUON_Q, BB_MUON_T, BB_MUON_SQUARES } bb_muon_square;

/* What a square will be in the products to come. */
enum { BB_MUON_LEFT = 1, BB_MUON_RIGHT = 2, BB_MUON_BOTH = BB_MUON_LEFT | BB_MUON_RIGHT };

/* One matrix, its scratch, and the group of threads that compute it; m <= n. */
typedef struct bb_muon_work {
    bb_device *dev;
    int64_t m, n;
    bool tall;               /* x is (n, m); otherwise (m, n) */
    float *x;                /* the matrix */
    void *room;              /* of products */
    int of[BB_MUON_SQUARES]; /* which of the matrices (m, m) in it each square is now */
    int thread, threads;
} bb_muon_work;

/* Bytes of room, by dev, m and n. */
size_t bb_muon_room(const bb_muon_work *w);

/* The products. Each function is called by all threads of a group, and returns when all of its result is there. */
void bb_muon_gram(const bb_muon_work *w); /* A = X XT, or XT X if tall; it will be left and right */
/* P = a I + b A + c A^2.  uses: of P */
void bb_muon_polynomial(const bb_muon_work *w, int uses);
/* out = left right, which commute; out is neither.  uses: of out */
void bb_muon_multiply(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses);
void bb_muon_apply(const bb_muon_work *w); /* x = Q x, or x Q if tall */

/* Until all threads of the group are here. */
void bb_muon_wait(const bb_muon_work *w);

#endif
