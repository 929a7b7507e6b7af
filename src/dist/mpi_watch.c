// SPDX-License-Identifier: MIT
/* The engine's own thread: it moves ranges on while the caller computes, and exchanges signs of life. Each second every rank
 * tells rank 0 that it lives, and rank 0 all others: so what is gone is found by one rank, which the launcher can hear, and
 * said once. Rank 0 watches the launcher, too, where that is on another host. Time is counted in the seconds in which this
 * thread itself ran, so that a job that was stopped as a whole, and goes on, is not taken for one that lost its ranks. */
#ifdef BB_HAVE_MPI
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

/* What is said: FAILING asks rank 0 for the word, which it gives, with REPORT, to the first that asks. END
 * is its order when there is no launcher to end the others. */
enum { ALIVE = 1, GOODBYE, FAILING, REPORT, END };
enum { REPORT_SECONDS = 8 }; /* for the rank that reports first to end the job */
enum { BEAT_TAG = 1, SPEAKS_TAG, MOVING_NS = 300000, IDLE_NS = 100000000 };

static void post_receive(bb_mpi *m, bb_mpi_peer *p) {
    bb_mpi_check(m, MPI_Irecv(&p->in, 1, MPI_INT64_T, p->rank, BEAT_TAG, m->beats, &p->request_in), "watching");
}

/* As the launcher would end this process, and its daemon here. */
_Noreturn static void end_now(void) {
    bb_mpi_end_launcher(1);
    _exit(1);
}

/* Takes what arrived; true when something did. */
static bool hear(bb_mpi *m, bb_mpi_peer *p) {
    bool heard = false;
    while (!p->ended && m->failure.code == BB_OK) {
        int flag = 0;
        bb_mpi_check(m, MPI_Test(&p->request_in, &flag, MPI_STATUS_IGNORE), "watching");
        if (!flag) break;
        heard = true;
        p->ended = p->in == GOODBYE;
        if (p->in == FAILING && m->first_failed < 0) m->first_failed = p->rank;
        if (p->in == REPORT) m->first_failed = m->base.rank;
        if (p->in == END) end_now();
        if (!p->ended) post_receive(m, p);
    }
    return heard;
}

static void say(bb_mpi *m, bb_mpi_peer *p, int64_t what) {
    p->out = what;
    bb_mpi_check(m, MPI_Isend(&p->out, 1, MPI_INT64_T, p->rank, BEAT_TAG, m->beats, &p->request_out), "watching");
}

static bool said(bb_mpi *m, bb_mpi_peer *p) {
    int flag = 0;
    bb_mpi_check(m, MPI_Test(&p->request_out, &flag, MPI_STATUS_IGNORE), "watching");
    return flag != 0;
}

/* missed: seconds without a sign of life from some rank. What a rank and the launcher share is told as the rank's. */
static void watch_launcher(bb_mpi *m, int missed) {
    int answers = bb_mpi_launcher_answers();
    m->missed_answers = answers < 0 || answers != m->answers ? 0 : m->missed_answers + 1;
    m->answers = answers;
    if (m->missed_answers < m->base.timeout_seconds || missed > 2) return;
    m->launcher_lost = true;
    bb_mpi_fail(
        m, BB_ERR_PEER,
        "the launcher, on another host, gave no sign of life for %d seconds: it hangs, or its host or the network is gone",
        m->missed_answers);
}

static void beat(bb_mpi *m) {
    int silent = 0;
    const bb_mpi_peer *first = m->peers, *longest = m->peers; /* there is one at least */
    for (int i = 0; i < m->peer_count; i++) {
        bb_mpi_peer *p = &m->peers[i];
        p->missed = hear(m, p) || p->ended ? 0 : p->missed + 1;
        if (p->missed > longest->missed) longest = p;
        if (!m->ending && said(m, p)) say(m, p, m->failing ? FAILING : p->rank == m->first_failed ? REPORT : ALIVE);
    }
    watch_launcher(m, longest->missed);
    if (longest->missed < m->base.timeout_seconds) return;
    for (int i = 0; i < m->peer_count; i++) { /* what went with it went within a second */
        if (m->peers[i].missed < m->base.timeout_seconds - 1 || m->peers[i].missed == 0) continue;
        if (silent++ == 0) first = &m->peers[i];
    }
    char others[32] = "";
    if (silent > 1) snprintf(others, sizeof others, ", one of %d,", silent);
    bb_mpi_fail(m, BB_ERR_PEER,
                "rank %d on %s%s gave no sign of life for %d seconds: its process hangs, or its host or the network is gone",
                first->rank, m->base.hosts[first->rank], others, longest->missed);
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
    m->first_failed = -1;
    if (m->base.size == 1) return BB_OK;
    if (m->base.rank == 0 && m->owns_mpi) bb_mpi_ask_launcher();
    int count = m->base.rank == 0 ? m->base.size - 1 : 1;
    m->peers = calloc((size_t)count, sizeof *m->peers);
    if (!m->peers) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a watch over %d processes", count);
    m->peer_count = count;
    for (int i = 0; i < count; i++) {
        m->peers[i].rank = m->base.rank == 0 ? i + 1 : 0;
        post_receive(m, &m->peers[i]);
        say(m, &m->peers[i], ALIVE);
    }
    if (pthread_create(&m->thread, NULL, run, m) != 0)
        return bb_fail(err, BB_ERR_MEMORY, "no thread for the exchange between processes");
    m->thread_runs = true;
    return BB_OK;
}

static bool all_said(bb_mpi *m) {
    bool all = true;
    for (int i = 0; i < m->peer_count; i++) all = said(m, &m->peers[i]) && all;
    return all;
}

static bool goodbye_said(bb_mpi *m, void *user) {
    (void)user;
    if (!all_said(m)) return false;
    if (m->ending) return true;
    m->ending = true;
    for (int i = 0; i < m->peer_count; i++) say(m, &m->peers[i], GOODBYE);
    return all_said(m);
}

static bool goodbye_heard(bb_mpi *m, void *user) {
    (void)user;
    bool all = true;
    for (int i = 0; i < m->peer_count; i++) {
        hear(m, &m->peers[i]);
        all = m->peers[i].ended && all;
    }
    return all;
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

static void pause_ns(int64_t ns) {
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) { /* the launcher's SIGTERM ends a process a second later */
    }
}

/* ---- without rank 0 there is nobody to ask who is to report: the first that says so does, the lowest ranks before the others
 */

static bool another_speaks(bb_mpi *m, int64_t nanoseconds_at_most) {
    int64_t end = nanoseconds(CLOCK_MONOTONIC) + nanoseconds_at_most;
    int flag = 0;
    while (!flag && nanoseconds(CLOCK_MONOTONIC) < end) {
        pthread_mutex_lock(&m->lock);
        if (MPI_Iprobe(MPI_ANY_SOURCE, SPEAKS_TAG, m->beats, &flag, MPI_STATUS_IGNORE) != MPI_SUCCESS) flag = 0;
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
    return flag != 0;
}

static void say_that_this_speaks(bb_mpi *m) {
    static const int64_t nothing = 0;
    pthread_mutex_lock(&m->lock);
    for (int r = 1; r < m->base.size; r++) {
        MPI_Request request;
        if (r != m->base.rank && MPI_Isend(&nothing, 1, MPI_INT64_T, r, SPEAKS_TAG, m->beats, &request) == MPI_SUCCESS)
            MPI_Request_free(&request);
    }
    pthread_mutex_unlock(&m->lock);
    (void)another_speaks(m, 50000000); /* in this time the messages leave */
}

static void report_without_rank_0(bb_mpi *m) {
    int64_t quarters = m->base.rank == 1 ? 4 : 8 + (m->base.rank < 10 ? m->base.rank : 10); /* of a second */
    if (!another_speaks(m, quarters * 250000000))
        say_that_this_speaks(m);
    else
        pause_ns(REPORT_SECONDS * (int64_t)1000000000); /* it ends this rank in that time */
}

void bb_mpi_wait_to_report(bb_dist *d) {
    bb_mpi *m = (bb_mpi *)d;
    int64_t end = nanoseconds(CLOCK_MONOTONIC) + REPORT_SECONDS * (int64_t)1000000000;
    bool own = false, cut_off = false;
    while (!own && !cut_off && nanoseconds(CLOCK_MONOTONIC) < end) {
        pthread_mutex_lock(&m->lock);
        bool asks = !m->failing;
        m->failing = true;
        if (d->rank == 0 && m->first_failed < 0) m->first_failed = 0;
        own = m->first_failed == d->rank;
        cut_off = m->failure.code != BB_OK;
        if (!own && !cut_off && d->rank > 0) {
            if (asks && said(m, m->peers)) say(m, m->peers, FAILING);
            hear(m, m->peers);
        }
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
    if (!own && cut_off && d->rank > 0) report_without_rank_0(m);
}

void bb_mpi_order_end(bb_mpi *m) {
    bool ordered = false;
    for (int tries = 0; tries < 100; tries++) { /* a second, in which the orders leave */
        pthread_mutex_lock(&m->lock);
        bool all = all_said(m);
        for (int i = 0; i < m->peer_count && all && !ordered; i++) say(m, &m->peers[i], END);
        ordered = ordered || all;
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
}
#endif
