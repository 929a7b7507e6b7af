// SPDX-License-Identifier: MIT
/* Asynchronous ranges. A sum is a direct exchange: every rank sends every other its part of the range, sums what it receives in
 * tree order, and sends the sum to all. That moves as many bytes as a ring, 2 (size-1)/size of the range each way, in two steps
 * instead of 2 (size-1), and fixes the order of the sum whatever arrives first. */
#ifdef BB_HAVE_MPI
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "core/clock.h"
#include "dist/mpi_engine.h"

enum { TAGS = 8192 }; /* operation numbers wrap at this, far above BB_MPI_QUEUE */

static bb_mpi_op *op_of(bb_mpi *m, int64_t number) { return &m->ops[number % BB_MPI_QUEUE]; }
static int tag_of(int64_t number, bb_mpi_phase phase) { return (int)(number % TAGS) * 2 + (phase == BB_MPI_GATHERING); }

static void receive(bb_mpi *m, bb_mpi_slot *slot, void *x, int64_t bytes, int from, int tag) {
    if (bytes == 0) return;
    bb_mpi_check(m, MPI_Irecv(x, (int)bytes, MPI_BYTE, from, tag, m->work, &slot->requests[slot->count]), "receiving");
    slot->count++;
}

static void send(bb_mpi *m, bb_mpi_slot *slot, const void *x, int64_t bytes, int to, int tag) {
    if (bytes == 0) return;
    bb_mpi_check(m, MPI_Isend(x, (int)bytes, MPI_BYTE, to, tag, m->work, &slot->requests[slot->count]), "sending");
    slot->count++;
    m->base.sent_bytes += bytes;
}

_Static_assert(BB_DIST_MAX_PART <= INT32_MAX / 4, "a part is one message, whose length is an int");

/* Posts all receives and sends of a phase. Each rank starts with its successor, so that not all send to the same one. */
static void begin_phase(bb_mpi *m, int64_t number, bb_mpi_phase phase) {
    bb_mpi_op *op = op_of(m, number);
    bb_mpi_slot *slot = &m->slots[number % BB_MPI_ACTIVE];
    const int64_t *cut = op->range.cut, width = op->range.width;
    unsigned char *x = op->range.x;
    int rank = m->base.rank, size = m->base.size, tag = tag_of(number, phase);
    bool to_all = op->kind != BB_DIST_GATHER;
    int64_t own = cut[rank + 1] - cut[rank];
    op->phase = phase;
    slot->count = 0;
    size_t bytes = (size_t)own * (size_t)(size - 1) * sizeof(float);
    if (phase == BB_MPI_REDUCING && slot->staging_bytes < bytes) {
        free(slot->staging);
        slot->staging = malloc(bytes);
        slot->staging_bytes = slot->staging ? bytes : 0;
        if (!slot->staging) {
            bb_mpi_fail(m, BB_ERR_MEMORY, "out of memory for %zu bytes of gradients that other ranks send", bytes);
            return;
        }
    }
    for (int i = 1; i < size; i++) {
        int from = (rank + size - i) % size;
        if (!to_all && rank > 0) break;
        if (phase == BB_MPI_REDUCING)
            receive(m, slot, slot->staging + (i - 1) * own, own * width, from, tag);
        else
            receive(m, slot, x + cut[from] * width, (cut[from + 1] - cut[from]) * width, from, tag);
    }
    for (int i = 1; i < size; i++) {
        int to = (rank + i) % size;
        if (!to_all && to > 0) continue;
        if (phase == BB_MPI_REDUCING)
            send(m, slot, x + cut[to] * width, (cut[to + 1] - cut[to]) * width, to, tag);
        else
            send(m, slot, x + cut[rank] * width, own * width, to, tag);
    }
}

static void sum_parts(bb_mpi *m, int64_t number) {
    bb_mpi_op *op = op_of(m, number);
    const bb_mpi_slot *slot = &m->slots[number % BB_MPI_ACTIVE];
    int rank = m->base.rank, size = m->base.size;
    int64_t begin = op->range.cut[rank], own = op->range.cut[rank + 1] - begin;
    for (int i = 1; i < size; i++) m->parts[(rank + size - i) % size] = slot->staging + (i - 1) * own;
    float *sum = (float *)op->range.x + begin;
    m->parts[rank] = sum;
    bb_dist_tree_sum(sum, m->parts, size, own);
}

/* Makes progress without blocking. */
static void advance(bb_mpi *m, int64_t number) {
    bb_mpi_op *op = op_of(m, number);
    bb_mpi_slot *slot = &m->slots[number % BB_MPI_ACTIVE];
    bool reduces = op->kind == BB_DIST_REDUCE_SCATTER || op->kind == BB_DIST_ALL_REDUCE;
    if (op->phase == BB_MPI_QUEUED) begin_phase(m, number, reduces ? BB_MPI_REDUCING : BB_MPI_GATHERING);
    while (op->phase != BB_MPI_DONE && m->failure.code == BB_OK) {
        int flag = 0;
        bb_mpi_check(m, MPI_Testall(slot->count, slot->requests, &flag, MPI_STATUSES_IGNORE), "an exchange of gradients");
        if (!flag) return;
        bool reduced = op->phase == BB_MPI_REDUCING;
        if (reduced) sum_parts(m, number);
        if (reduced && op->kind == BB_DIST_ALL_REDUCE)
            begin_phase(m, number, BB_MPI_GATHERING);
        else
            op->phase = BB_MPI_DONE;
    }
}

void bb_mpi_progress_locked(bb_mpi *m) {
    int64_t end = m->next < m->oldest + BB_MPI_ACTIVE ? m->next : m->oldest + BB_MPI_ACTIVE;
    for (int64_t i = m->oldest; i < end && m->failure.code == BB_OK; i++)
        if (op_of(m, i)->phase != BB_MPI_DONE) advance(m, i);
    while (m->oldest < m->next && op_of(m, m->oldest)->phase == BB_MPI_DONE) m->oldest++;
}

bb_status bb_mpi_wait(bb_mpi *m, bool (*done)(bb_mpi *m, void *user), void *user, bb_error *err) {
    const struct timespec pause = {.tv_nsec = 50000};
    double begin = bb_clock_seconds();
    bb_status status = BB_OK;
    for (int turn = 0;; turn++) {
        pthread_mutex_lock(&m->lock);
        bb_mpi_progress_locked(m);
        bool finished = m->failure.code == BB_OK && done(m, user);
        if (m->failure.code != BB_OK) {
            status = m->failure.code;
            if (err) *err = m->failure;
            finished = true;
        }
        pthread_mutex_unlock(&m->lock);
        if (finished) break;
        if (turn < 200) /* let other threads run */
            sched_yield();
        else
            nanosleep(&pause, NULL);
    }
    m->base.wait_seconds += bb_clock_seconds() - begin;
    return status;
}

static bool queue_has_space(bb_mpi *m, void *user) {
    (void)user;
    return m->next - m->oldest < BB_MPI_QUEUE;
}

static bool all_done(bb_mpi *m, void *user) {
    (void)user;
    return m->next == m->oldest;
}

bb_status bb_mpi_start(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    bb_mpi *m = (bb_mpi *)d;
    if (d->size == 1) return BB_OK;
    BB_TRY(bb_mpi_wait(m, queue_has_space, NULL, err));
    pthread_mutex_lock(&m->lock);
    *op_of(m, m->next) = (bb_mpi_op){.kind = kind, .range = range};
    m->next++;
    bb_mpi_progress_locked(m);
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    return BB_OK;
}

bb_status bb_mpi_wait_ranges(bb_dist *d, bb_error *err) { return bb_mpi_wait((bb_mpi *)d, all_done, NULL, err); }
#endif
