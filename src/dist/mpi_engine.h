// SPDX-License-Identifier: MIT
/* Internals of the MPI engine. Two threads call MPI, one at a time (MPI_THREAD_SERIALIZED): the caller's, and the engine's own,
 * which makes progress while the caller computes and exchanges heartbeats. */
#ifndef BB_DIST_MPI_ENGINE_H
#define BB_DIST_MPI_ENGINE_H

#include <mpi.h>
#include <pthread.h>

#include "dist/dist.h"

enum { BB_MPI_QUEUE = 64, BB_MPI_ACTIVE = 4 }; /* maximum number of unfinished ranges, and of those in flight */

typedef enum bb_mpi_phase { BB_MPI_QUEUED = 0, BB_MPI_REDUCING, BB_MPI_GATHERING, BB_MPI_DONE } bb_mpi_phase;

typedef struct bb_mpi_op {
    bb_dist_kind kind;
    bb_mpi_phase phase;
    bb_dist_range range;
} bb_mpi_op;

/* Operation n uses slot n % BB_MPI_ACTIVE. */
typedef struct bb_mpi_slot {
    MPI_Request *requests; /* (2 (size - 1)) */
    int count;
    float *staging; /* this rank's part as received from the other ranks */
    size_t staging_bytes;
} bb_mpi_slot;

/* A rank that this one monitors. */
typedef struct bb_mpi_peer {
    int rank;
    int64_t in, out;
    MPI_Request request_in, request_out;
    int missed; /* seconds without a heartbeat */
    bool ended; /* it announced its end */
} bb_mpi_peer;

typedef struct bb_mpi {
    bb_dist base;
    MPI_Comm work, beats;
    bool owns_mpi; /* this engine called MPI_Init */

    pthread_mutex_t lock; /* protects every MPI call and everything below */
    pthread_cond_t wake;
    pthread_t thread;
    bool thread_runs, closing;
    bb_error failure; /* the first failure; code BB_OK: none */

    bb_mpi_op ops[BB_MPI_QUEUE]; /* operation n is at n % BB_MPI_QUEUE */
    int64_t oldest, next;        /* numbers of the first unfinished operation and of the next one */
    bb_mpi_slot slots[BB_MPI_ACTIVE];
    const float **parts; /* (size), for a sum */

    /* heartbeats between rank 0, which runs beside the launcher or near it, and every other rank */
    bb_mpi_peer *peers;
    int peer_count;
    bool ending;  /* this rank announced its end */
    bool failing; /* it has a failure to report */
    int answers;  /* the launcher's answers so far, and the seconds since that number changed; rank 0 only */
    int missed_answers;
    bool launcher_lost;
    int first_failed; /* the rank that reports its failure, -1: none; known to rank 0 and to that rank */
} bb_mpi;

/* mpi_engine.c: record the first failure, from an MPI error code or a message. */
void bb_mpi_check(bb_mpi *m, int code, const char *doing);
void bb_mpi_fail(bb_mpi *m, bb_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* mpi_ranges.c; `_locked`: the caller holds the lock */
/* Polls done() with the lock held, and makes progress on ranges, until it is true or something has failed. */
bb_status bb_mpi_wait(bb_mpi *m, bool (*done)(bb_mpi *m, void *user), void *user, bb_error *err);
bb_status bb_mpi_start(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err);
bb_status bb_mpi_wait_ranges(bb_dist *d, bb_error *err);
void bb_mpi_progress_locked(bb_mpi *m);

/* mpi_watch.c */
bb_status bb_mpi_watch_open(bb_mpi *m, bb_error *err);
/* Announces the end of this rank to its monitors. No heartbeat is in flight afterwards. */
void bb_mpi_watch_close(bb_mpi *m);
void bb_mpi_wait_to_report(bb_dist *d);
/* On rank 0, after the launcher is lost: tells the other ranks to exit. */
void bb_mpi_order_end(bb_mpi *m);

/* mpi_guard.c: ends this process with a message if `doing` ("start", "end") takes too long between the two calls. */
typedef struct bb_mpi_guard {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    const char *doing;
    bool runs, over;
} bb_mpi_guard;
void bb_mpi_guard_begin(bb_mpi_guard *g, const char *doing);
void bb_mpi_guard_end(bb_mpi_guard *g);

/* mpi_launcher.c: kills the program that started this rank if it is still running after some seconds. */
void bb_mpi_end_launcher(int after_seconds);
/* Pings an mpirun on another host once a second until stopped; stopping waits for the last answer. */
void bb_mpi_ping_launcher(void);
void bb_mpi_stop_pinging(void);
int bb_mpi_launcher_answers(void); /* answers so far; -1: the launcher is not pinged */

#endif
