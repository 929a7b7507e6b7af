// SPDX-License-Identifier: MIT
/* The parts of the MPI engine. MPI is called from two threads, one at a time (MPI_THREAD_SERIALIZED): the caller's, and one of
 * the engine's own that moves data while the caller computes and exchanges signs of life. */
#ifndef BB_DIST_MPI_ENGINE_H
#define BB_DIST_MPI_ENGINE_H

#include <mpi.h>
#include <pthread.h>

#include "dist/dist.h"

enum { BB_MPI_QUEUE = 64, BB_MPI_ACTIVE = 4 }; /* ranges started and not yet done; of these, moving at the same time */

typedef enum bb_mpi_phase { BB_MPI_QUEUED = 0, BB_MPI_REDUCING, BB_MPI_GATHERING, BB_MPI_DONE } bb_mpi_phase;

typedef struct bb_mpi_op {
    bb_dist_kind kind;
    bb_mpi_phase phase;
    bb_dist_range range;
} bb_mpi_op;

/* What the op numbered n uses is slot n % BB_MPI_ACTIVE. */
typedef struct bb_mpi_slot {
    MPI_Request *requests; /* (2 (size - 1)) */
    int count;
    float *staging; /* what the other ranks sent of this one's part */
    size_t staging_bytes;
} bb_mpi_slot;

/* Another rank that this one watches. */
typedef struct bb_mpi_peer {
    int rank;
    int64_t in, out;
    MPI_Request request_in, request_out;
    int missed; /* seconds without a sign of life */
    bool ended; /* it said goodbye */
} bb_mpi_peer;

typedef struct bb_mpi {
    bb_dist base;
    MPI_Comm work, beats;
    bool owns_mpi; /* this engine called MPI_Init */

    pthread_mutex_t lock; /* held for every MPI call and for all below */
    pthread_cond_t wake;
    pthread_t thread;
    bool thread_runs, closing;
    bb_error failure; /* the first; code BB_OK: none */

    bb_mpi_op ops[BB_MPI_QUEUE]; /* number n is at n % BB_MPI_QUEUE */
    int64_t oldest, next;        /* numbers: of the first that is not done, and of the next start */
    bb_mpi_slot slots[BB_MPI_ACTIVE];
    const float **parts; /* (size), for a sum */

    /* signs of life: between rank 0, which is where the launcher is or next to it, and every other */
    bb_mpi_peer *peers;
    int peer_count;
    bool ending;  /* this rank said goodbye */
    bool failing; /* it has a failure to report */
    int answers;  /* the last number of the launcher's, and the seconds since it changed; rank 0 alone */
    int missed_answers;
    bool launcher_lost;
    int first_failed; /* the rank that is to report its failure, -1: none; known to rank 0, and to that rank */
} bb_mpi;

/* Records the first failure, from an MPI error code or in words. */
void bb_mpi_check(bb_mpi *m, int code, const char *doing);
void bb_mpi_fail(bb_mpi *m, bb_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Calls done() with the lock held until it is true or something failed. */
bb_status bb_mpi_wait(bb_mpi *m, bool (*done)(bb_mpi *m, void *user), void *user, bb_error *err);

/* mpi_ranges.c; the lock is held where it says `locked` */
bb_status bb_mpi_start(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err);
bb_status bb_mpi_wait_ranges(bb_dist *d, bb_error *err);
void bb_mpi_progress_locked(bb_mpi *m);

/* mpi_watch.c */
bb_status bb_mpi_watch_open(bb_mpi *m, bb_error *err);
/* Says goodbye to those who watch this rank. After it no sign of life is under way. */
void bb_mpi_watch_close(bb_mpi *m);
void bb_mpi_wait_to_report(bb_dist *d);
/* By rank 0, without a launcher: the other ranks end. */
void bb_mpi_order_end(bb_mpi *m);

/* mpi_guard.c: should `doing` ("start", "end") take too long between the two calls, this process ends with a message. */
typedef struct bb_mpi_guard {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    const char *doing;
    bool runs, over;
} bb_mpi_guard;
void bb_mpi_guard_begin(bb_mpi_guard *g, const char *doing);
void bb_mpi_guard_end(bb_mpi_guard *g);

/* mpi_launcher.c: ends the program that started this rank, some seconds from now, should it still run then. */
void bb_mpi_end_launcher(int after_seconds);
/* Asks mpirun each second whether it is there, when it is on another host than this rank, until told to ask no more; that
 * waits for the last answer. */
void bb_mpi_ask_launcher(void);
void bb_mpi_ask_no_more(void);
int bb_mpi_launcher_answers(void); /* so far, -1: it is not asked */

#endif
