// SPDX-License-Identifier: MIT
/* The MPI engine: opening, blocking collectives, closing. */
#ifndef BB_HAVE_MPI
#include "dist/dist.h"

bb_status bb_dist_open_mpi(bb_dist **out, bb_error *err) {
    *out = NULL;
    return bb_fail(
        err, BB_ERR_UNSUPPORTED,
        "this build is without MPI and trains only in one process: install an MPI (Debian: libopenmpi-dev openmpi-bin) "
        "and rebuild");
}
#else
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/host.h"
#include "dist/mpi_engine.h"

enum { PIECE_BYTES = 1 << 26, TRANSFER_TAG = 1 << 14, DEFAULT_TIMEOUT = 15, ABORT_SECONDS = 5 };

static bb_mpi *mpi_of(bb_dist *d) { return (bb_mpi *)d; }

/* ---- waiting -------------------------------------------------------------------------------------------- */

static bool request_done(bb_mpi *m, void *user) {
    int flag = 0;
    bb_mpi_check(m, MPI_Test((MPI_Request *)user, &flag, MPI_STATUS_IGNORE), "an exchange");
    return flag != 0;
}

static bb_status wait_request(bb_mpi *m, MPI_Request *request, bb_error *err) {
    return bb_mpi_wait(m, request_done, request, err);
}

typedef struct outside {
    bool (*done)(void *user);
    void *user;
} outside;

static bool outside_done(bb_mpi *m, void *user) {
    const outside *o = user;
    (void)m;
    return o->done(o->user);
}

static bb_status mpi_wait_until(bb_dist *d, bool (*done)(void *user), void *user, bb_error *err) {
    outside o = {done, user};
    return bb_mpi_wait(mpi_of(d), outside_done, &o, err);
}

/* ---- blocking exchanges ---------------------------------------------------------------------------------------------- */

static bb_status mpi_all_gather(bb_dist *d, const void *mine, void *all, size_t bytes, bb_error *err) {
    bb_mpi *m = mpi_of(d);
    MPI_Request request = MPI_REQUEST_NULL;
    pthread_mutex_lock(&m->lock);
    bb_mpi_check(m, MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, m->work, &request), "an all-gather");
    pthread_mutex_unlock(&m->lock);
    return wait_request(m, &request, err);
}

/* Transfers a long message piece by piece. */
static bb_status in_pieces(bb_mpi *m, void *data, size_t bytes, int (*begin)(void *, int, int, MPI_Comm, MPI_Request *),
                           int peer, bb_error *err) {
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        int n = bytes - at < PIECE_BYTES ? (int)(bytes - at) : (int)PIECE_BYTES;
        MPI_Request request = MPI_REQUEST_NULL;
        pthread_mutex_lock(&m->lock);
        bb_mpi_check(m, begin((unsigned char *)data + at, n, peer, m->work, &request), "a transfer");
        pthread_mutex_unlock(&m->lock);
        BB_TRY(wait_request(m, &request, err));
    }
    return BB_OK;
}

static int begin_broadcast(void *data, int n, int root, MPI_Comm comm, MPI_Request *request) {
    return MPI_Ibcast(data, n, MPI_BYTE, root, comm, request);
}
static int begin_send(void *data, int n, int to, MPI_Comm comm, MPI_Request *request) {
    return MPI_Isend(data, n, MPI_BYTE, to, TRANSFER_TAG, comm, request);
}
static int begin_receive(void *data, int n, int from, MPI_Comm comm, MPI_Request *request) {
    return MPI_Irecv(data, n, MPI_BYTE, from, TRANSFER_TAG, comm, request);
}

static bb_status mpi_broadcast(bb_dist *d, void *data, size_t bytes, int root, bb_error *err) {
    return in_pieces(mpi_of(d), data, bytes, begin_broadcast, root, err);
}

static bb_status mpi_transfer(bb_dist *d, void *data, size_t bytes, int from, int to, bb_error *err) {
    if (from == to) return BB_OK;
    if (d->rank == from) return in_pieces(mpi_of(d), data, bytes, begin_send, to, err);
    if (d->rank == to) return in_pieces(mpi_of(d), data, bytes, begin_receive, from, err);
    return BB_OK;
}

static size_t mpi_buffer_bytes(int size, int64_t elements) {
    int64_t part = (elements + size - 1) / size;
    return BB_MPI_ACTIVE * (size_t)(size - 1) * (size_t)part * sizeof(float);
}

/* ---- closing --------------------------------------------------------------------------------------------------------- */

static void release(bb_mpi *m) {
    for (int i = 0; i < BB_MPI_ACTIVE; i++) {
        free(m->slots[i].requests);
        free(m->slots[i].staging);
    }
    free(m->parts);
    free(m->peers);
    free(m->base.hosts);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->wake);
    free(m);
}

static void mpi_close(bb_dist *d) {
    bb_mpi *m = mpi_of(d);
    bb_error ignored;
    (void)bb_dist_barrier(d, &ignored); /* heartbeats continue until every rank is here */
    bb_mpi_watch_close(m);
    if (m->failure.code == BB_OK) { /* otherwise MPI would wait for lost ranks */
        bb_mpi_guard guard;
        bb_mpi_guard_begin(&guard, "end");
        bb_mpi_stop_pinging();
        MPI_Comm_free(&m->beats);
        MPI_Comm_free(&m->work);
        if (m->owns_mpi) MPI_Finalize();
        bb_mpi_guard_end(&guard);
    }
    release(m);
}

static void mpi_abort(bb_dist *d, int exit_status) {
    /* MPI_Abort asks the launcher to end all ranks; the alarm ends this process even if the launcher can't be reached. A launcher
     * that can't reach a host would wait for a quarter of an hour, so it is killed. */
    bool launcher_lost = mpi_of(d)->launcher_lost; /* no lock: this must not block */
    bb_mpi_end_launcher(launcher_lost ? 2 : ABORT_SECONDS + 1);
    signal(SIGALRM, SIG_DFL);
    alarm(ABORT_SECONDS);
    if (launcher_lost)
        bb_mpi_order_end(mpi_of(d));
    else
        MPI_Abort(MPI_COMM_WORLD, exit_status);
    _exit(exit_status);
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static const bb_dist_engine engine = {.name = "mpi",
                                      .close = mpi_close,
                                      .abort = mpi_abort,
                                      .wait_to_report = bb_mpi_wait_to_report,
                                      .all_gather = mpi_all_gather,
                                      .broadcast = mpi_broadcast,
                                      .transfer = mpi_transfer,
                                      .start = bb_mpi_start,
                                      .wait = bb_mpi_wait_ranges,
                                      .wait_until = mpi_wait_until,
                                      .buffer_bytes = mpi_buffer_bytes};

/* Ranks of one host with the same affinity mask divide its processors. Also counts the ranks of this host. */
static int share_processors(bb_mpi *m) {
    uint64_t mine = bb_host_affinity(sched_getaffinity).id, *all;
    MPI_Comm host;
    int same = 0;
    MPI_Comm_split_type(m->work, MPI_COMM_TYPE_SHARED, m->base.rank, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &m->base.local_size);
    MPI_Comm_rank(host, &m->base.local_rank);
    all = calloc((size_t)m->base.local_size, sizeof *all);
    if (all) {
        MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, host);
        for (int i = 0; i < m->base.local_size; i++) same += all[i] == mine;
    }
    free(all);
    MPI_Comm_free(&host);
    return bb_host_threads("", same);
}

static bb_status start_mpi(bool *owns, bb_error *err) {
    int begun = 0, ended = 0, level = MPI_THREAD_SINGLE;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    if (ended) return bb_fail(err, BB_ERR_UNSUPPORTED, "MPI can be opened only once per process, and it was closed already");
    *owns = !begun;
    if (begun)
        MPI_Query_thread(&level);
    else if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
        return bb_fail(err, BB_ERR_PEER, "MPI cannot start");
    if (level < MPI_THREAD_SERIALIZED)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "this MPI supports calls from one thread only; MPI_THREAD_SERIALIZED is needed");
    return BB_OK;
}

static bb_status open_engine(bb_dist **out, bb_error *err) {
    bool owns = false;
    BB_TRY(start_mpi(&owns, err));
    bb_mpi *m = calloc(1, sizeof *m);
    if (!m) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, NULL);
    m->owns_mpi = owns;
    m->base.engine = &engine;
    m->base.timeout_seconds = DEFAULT_TIMEOUT;
    MPI_Comm_dup(MPI_COMM_WORLD, &m->work);
    MPI_Comm_dup(MPI_COMM_WORLD, &m->beats);
    MPI_Comm_set_errhandler(m->work, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(m->beats, MPI_ERRORS_RETURN);
    MPI_Comm_rank(m->work, &m->base.rank);
    MPI_Comm_size(m->work, &m->base.size);
    size_t size = (size_t)m->base.size;
    bool good = (m->base.hosts = calloc(size, sizeof *m->base.hosts)) && (m->parts = calloc(size, sizeof *m->parts));
    for (int i = 0; i < BB_MPI_ACTIVE && good; i++)
        good = (m->slots[i].requests = calloc(2 * size, sizeof *m->slots[i].requests)) != NULL;
    if (!good) {
        release(m);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a job of %zu processes", size);
    }
    char host[sizeof *m->base.hosts] = "";
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "?");
    MPI_Allgather(host, (int)sizeof host, MPI_CHAR, m->base.hosts, (int)sizeof host, MPI_CHAR, m->work);
    m->base.threads = share_processors(m);
    bb_status status = bb_mpi_watch_open(m, err);
    if (status != BB_OK) {
        release(m);
        return status;
    }
    *out = &m->base;
    return BB_OK;
}

bb_status bb_dist_open_mpi(bb_dist **out, bb_error *err) {
    *out = NULL;
    bb_mpi_guard guard;
    bb_mpi_guard_begin(&guard, "start");
    bb_status status = open_engine(out, err);
    bb_mpi_guard_end(&guard);
    return status;
}
#endif
