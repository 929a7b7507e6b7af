// SPDX-License-Identifier: MIT
#include <math.h>
#include <omp.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/optimizer/muon_products.h"
#include "ops/cpu/optimizer/muon_set.h"

enum { TILE = 4096 };

/* Of scratch for matrices that are computed side by side. */
static const size_t side_by_side_bytes = (size_t)512 << 20;

/* Iterations of each run: with more, errors of A would grow too large. */
enum { LONGEST_RUN = 3 };

static void swap(bb_muon_work *w, bb_muon_square a, bb_muon_square b) {
    int other = w->of[a];
    w->of[a] = w->of[b];
    w->of[b] = other;
}

static void iterate(bb_muon_work *w, int iterations) {
    bb_muon_gram(w);
    for (int i = 0; i < iterations; i++) {
        bool last = i == iterations - 1;
        int q_is = last && !w->tall ? BB_MUON_LEFT : BB_MUON_RIGHT;
        bb_muon_polynomial(w, i == 0 ? BB_MUON_LEFT | q_is : BB_MUON_LEFT);
        if (!last) { /* A = P (P A), with P as it is before Q takes its place */
            bb_muon_multiply(w, BB_MUON_T, BB_MUON_P, BB_MUON_GRAM, BB_MUON_RIGHT);
            bb_muon_multiply(w, BB_MUON_GRAM, BB_MUON_P, BB_MUON_T, BB_MUON_LEFT | BB_MUON_RIGHT);
        }
        if (i == 0) {
            swap(w, BB_MUON_Q, BB_MUON_P);
        } else {
            bb_muon_multiply(w, BB_MUON_T, BB_MUON_P, BB_MUON_Q, q_is);
            swap(w, BB_MUON_Q, BB_MUON_T);
        }
    }
    bb_muon_apply(w);
}

static bb_muon_work work_for(bb_device *dev, int64_t N, int64_t K) {
    return (bb_muon_work){.dev = dev, .m = bb_min(N, K), .n = bb_max(N, K), .tall = N > K, .threads = 1};
}

static size_t layout(bb_muon_work *w, double **squares, void *memory) {
    bb_arena arena = {.base = memory};
    w->x = bb_arena_alloc(&arena, (size_t)(w->m * w->n) * sizeof *w->x);
    *squares = bb_arena_alloc(&arena, (size_t)bb_ceil_div(w->m * w->n, TILE) * sizeof **squares);
    w->room = bb_arena_alloc(&arena, bb_muon_room(w));
    return bb_align_up(arena.used);
}

/* How many matrices are computed side by side; 1: all threads compute one. */
static int64_t side_by_side(const bb_device *dev, int64_t count, size_t bytes) {
    if (bytes == 0) return 1;
    int64_t places = (int64_t)(side_by_side_bytes / bytes), at_once = bb_min(bb_min(dev->threads, count), places);
    return 2 * at_once > dev->threads ? bb_max(at_once, 1) : 1;
}

size_t bb_cpu_muon_scratch(bb_device *dev, int64_t N, int64_t K) {
    bb_muon_work w = work_for(dev, N, K);
    double *squares;
    size_t bytes = layout(&w, &squares, NULL);
    return bytes * (size_t)side_by_side(dev, dev->threads, bytes);
}

/* Called by all threads of a group. */
static void update(bb_muon_work *w, const bb_muon_matrix *matrix, const bb_muon *h, double *squares) {
    const bb_muon_set *set = bb_cpu_of(w->dev)->kernels.muon;
    int64_t count = w->m * w->n, tiles = bb_ceil_div(count, TILE);
    const bb_muon_momentum k = {(float)h->momentum, (float)(1 - h->momentum), (float)h->grad_scale};
    for (int64_t i = w->thread; i < tiles; i += w->threads) {
        int64_t at = i * TILE;
        set->momentum(w->x + at, &squares[i], matrix->g + at, matrix->m + at, bb_min(count - at, TILE), &k);
    }
    bb_muon_wait(w);
    double sum = 0;
    for (int64_t i = 0; i < tiles; i++) sum += squares[i];
    float factor = (float)(1 / (sqrt(sum) + BB_MUON_EPS));
    for (int64_t i = w->thread; i < tiles; i += w->threads) set->scale(w->x + i * TILE, factor, bb_min(count - i * TILE, TILE));
    bb_muon_wait(w);
    for (int i = 0; i < BB_MUON_SQUARES; i++) w->of[i] = i;
    int runs = (h->iterations + LONGEST_RUN - 1) / LONGEST_RUN, left = h->iterations;
    for (; runs > 0; left -= left / runs--) iterate(w, left / runs);
    float kept = (float)(1 - h->lr * h->weight_decay), lr = (float)(h->lr * bb_muon_scale(matrix->N, matrix->K));
    for (int64_t i = w->thread; i < tiles; i += w->threads)
        set->update(matrix->p + i * TILE, w->x + i * TILE, kept, lr, bb_min(count - i * TILE, TILE));
    bb_muon_wait(w);
}

void bb_cpu_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h) {
    size_t bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        double *squares;
        bb_muon_work w = work_for(dev, matrices[i].N, matrices[i].K);
        size_t needed = layout(&w, &squares, NULL);
        if (needed > bytes) bytes = needed;
    }
    int64_t at_once = side_by_side(dev, count, bytes);
    uint8_t *memory = bb_cpu_shared(dev, bytes * (size_t)at_once);
    if (!memory) return;
    if (at_once > 1) {
#pragma omp parallel for num_threads(at_once) schedule(dynamic)
        for (int64_t i = 0; i < count; i++) {
            double *squares;
            bb_muon_work w = work_for(dev, matrices[i].N, matrices[i].K);
            layout(&w, &squares, memory + (size_t)omp_get_thread_num() * bytes);
            update(&w, &matrices[i], h, squares);
        }
        return;
    }
#pragma omp parallel num_threads(dev->threads)
    for (int64_t i = 0; i < count; i++) {
        double *squares;
        bb_muon_work w = work_for(dev, matrices[i].N, matrices[i].K);
        layout(&w, &squares, memory);
        w.thread = omp_get_thread_num();
        w.threads = omp_get_num_threads();
        update(&w, &matrices[i], h, squares);
    }
}
