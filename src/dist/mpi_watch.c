/* The engine's own thread: it moves ranges on while the caller computes, and exchanges signs of life. Every rank tells the next
 * one each second that it lives. Time is counted in the seconds in which this thread itself ran, so that a job that was stopped
 * as a whole, and goes on, is not taken for one that lost its ranks.
 * SPDX-License-Identifier: MIT */
#ifdef BB_HAVE_MPI
#include <errno.h>
#include <time.h>

#include "dist/mpi_engine.h"

enum { ALIVE = 1, GOODBYE = 2, BEAT_TAG = 1, MOVING_NS = 300000, IDLE_NS = 100000000 };

static int before(const bb_mpi *m) { return (m->base.rank + m->base.size - 1) % m->base.size; }
static int after(const bb_mpi *m) { return (m->base.rank + 1) % m->base.size; }

static void post_receive(bb_mpi *m) {
    bb_mpi_check(m, MPI_Irecv(&m->beat_in, 1, MPI_INT64_T, before(m), BEAT_TAG, m->beats, &m->request_in), "watching");
}

/* Takes what arrived; true when something did. */
static bool hear(bb_mpi *m) {
    bool heard = false;
    while (!m->before_ended && m->failure.code == BB_OK) {
        int flag = 0;
        bb_mpi_check(m, MPI_Test(&m->request_in, &flag, MPI_STATUS_IGNORE), "watching");
        if (!flag) break;
        heard = true;
        m->before_ended = m->beat_in == GOODBYE;
        if (!m->before_ended) post_receive(m);
    }
    return heard;
}

static void say(bb_mpi *m, int64_t what) {
    m->beat_out = what;
    bb_mpi_check(m, MPI_Isend(&m->beat_out, 1, MPI_INT64_T, after(m), BEAT_TAG, m->beats, &m->request_out), "watching");
}

static bool said(bb_mpi *m) {
    int flag = 0;
    bb_mpi_check(m, MPI_Test(&m->request_out, &flag, MPI_STATUS_IGNORE), "watching");
    return flag != 0;
}

static void beat(bb_mpi *m) {
    m->missed = hear(m) || m->before_ended ? 0 : m->missed + 1;
    if (m->missed >= m->base.timeout_seconds)
        bb_mpi_fail(m, BB_ERR_PEER,
                    "rank %d on %s gave no sign of life for %d seconds: its process hangs, or its host or the network is gone",
                    before(m), m->base.hosts[before(m)], m->missed);
    if (!m->ending && said(m)) say(m, ALIVE);
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *run(void *user) {
    bb_mpi *m = user;
    int64_t last_beat = 0;
    pthread_mutex_lock(&m->lock);
    while (!m->closing) {
        int64_t t = nanoseconds(CLOCK_MONOTONIC);
        if (m->failure.code == BB_OK) {
            bb_mpi_progress_locked(m);
            if (t - last_beat >= 1000000000) {
                beat(m);
                last_beat = t;
            }
        }
        bool moving = m->oldest < m->next && m->failure.code == BB_OK;
        int64_t until = nanoseconds(CLOCK_REALTIME) + (moving ? MOVING_NS : IDLE_NS);
        struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        pthread_cond_timedwait(&m->wake, &m->lock, &deadline);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

bb_status bb_mpi_watch_open(bb_mpi *m, bb_error *err) {
    m->request_in = m->request_out = MPI_REQUEST_NULL;
    if (m->base.size == 1) return BB_OK;
    post_receive(m);
    say(m, ALIVE);
    if (pthread_create(&m->thread, NULL, run, m) != 0)
        return bb_fail(err, BB_ERR_MEMORY, "no thread for the exchange between processes");
    m->thread_runs = true;
    return BB_OK;
}

static bool goodbye_said(bb_mpi *m, void *user) {
    (void)user;
    if (!said(m)) return false;
    if (m->ending) return true;
    m->ending = true;
    say(m, GOODBYE);
    return said(m);
}

static bool goodbye_heard(bb_mpi *m, void *user) {
    (void)user;
    hear(m);
    return m->before_ended;
}

void bb_mpi_watch_close(bb_mpi *m) {
    if (!m->thread_runs) return;
    bb_error ignored;
    if (bb_mpi_wait(m, goodbye_said, NULL, &ignored) == BB_OK) (void)bb_mpi_wait(m, goodbye_heard, NULL, &ignored);
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    m->thread_runs = false;
}
#endif
