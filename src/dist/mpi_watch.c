// SPDX-License-Identifier: MIT
/* The engine's thread: makes progress on ranges while the caller computes, and exchanges heartbeats. Every second each rank
 * sends one to rank 0, and rank 0 to all others: a loss is detected by one rank, which the launcher can hear, and reported
 * once. Rank 0 also monitors a launcher on another host. Timeouts count seconds in which this thread ran, so that a job that
 * was suspended as a whole and continued is not mistaken for one that lost its ranks. */
#ifdef BB_HAVE_MPI
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

/* Messages. FAILING asks rank 0 for permission to report a failure, which it grants, with REPORT, to the first that asks. END
 * is rank 0's order to exit after the launcher is lost. */
enum { ALIVE = 1, GOODBYE, FAILING, REPORT, END };
enum { REPORT_SECONDS = 8 }; /* for the reporting rank to end the job */
enum { HEARTBEAT_TAG = 1, REPORTS_TAG, MOVING_NS = 300000, IDLE_NS = 100000000 };

static void post_receive(bb_mpi *m, bb_mpi_peer *p) {
    bb_mpi_check(m, MPI_Irecv(&p->in, 1, MPI_INT64_T, p->rank, HEARTBEAT_TAG, m->beats, &p->request_in), "watching");
}

/* Exits, and kills the launcher or its daemon on this host. */
_Noreturn static void end_now(void) {
    bb_mpi_end_launcher(1);
    _exit(1);
}

/* Receives messages that have arrived; returns whether there were any. */
static bool receive_messages(bb_mpi *m, bb_mpi_peer *p) {
    bool received = false;
    while (!p->ended && m->failure.code == BB_OK) {
        int flag = 0;
        bb_mpi_check(m, MPI_Test(&p->request_in, &flag, MPI_STATUS_IGNORE), "watching");
        if (!flag) break;
        received = true;
        p->ended = p->in == GOODBYE;
        if (p->in == FAILING && m->first_failed < 0) m->first_failed = p->rank;
        if (p->in == REPORT) m->first_failed = m->base.rank;
        if (p->in == END) end_now();
        if (!p->ended) post_receive(m, p);
    }
    return received;
}

static void send_message(bb_mpi *m, bb_mpi_peer *p, int64_t what) {
    p->out = what;
    bb_mpi_check(m, MPI_Isend(&p->out, 1, MPI_INT64_T, p->rank, HEARTBEAT_TAG, m->beats, &p->request_out), "watching");
}

static bool is_sent(bb_mpi *m, bb_mpi_peer *p) {
    int flag = 0;
    bb_mpi_check(m, MPI_Test(&p->request_out, &flag, MPI_STATUS_IGNORE), "watching");
    return flag != 0;
}

/* missed: seconds without a heartbeat from some rank. A loss that affects both a rank and the launcher is reported as the
 * rank's. */
static void watch_launcher(bb_mpi *m, int missed) {
    int answers = bb_mpi_launcher_answers();
    m->missed_answers = answers < 0 || answers != m->answers ? 0 : m->missed_answers + 1;
    m->answers = answers;
    if (m->missed_answers < m->base.timeout_seconds || missed > 2) return;
    m->launcher_lost = true;
    bb_mpi_fail(m, BB_ERR_PEER,
                "the launcher, on another host, sent no heartbeat for %d seconds: it hangs, or its host or the network is gone",
                m->missed_answers);
}

static void exchange_heartbeats(bb_mpi *m) {
    int silent = 0;
    const bb_mpi_peer *first = m->peers, *longest = m->peers; /* there is at least one */
    for (int i = 0; i < m->peer_count; i++) {
        bb_mpi_peer *p = &m->peers[i];
        p->missed = receive_messages(m, p) || p->ended ? 0 : p->missed + 1;
        if (p->missed > longest->missed) longest = p;
        if (!m->ending && is_sent(m, p)) send_message(m, p, m->failing ? FAILING : p->rank == m->first_failed ? REPORT : ALIVE);
    }
    watch_launcher(m, longest->missed);
    if (longest->missed < m->base.timeout_seconds) return;
    for (int i = 0; i < m->peer_count; i++) { /* losses with the same cause are a second apart at most */
        if (m->peers[i].missed < m->base.timeout_seconds - 1 || m->peers[i].missed == 0) continue;
        if (silent++ == 0) first = &m->peers[i];
    }
    char others[32] = "";
    if (silent > 1) snprintf(others, sizeof others, ", one of %d,", silent);
    bb_mpi_fail(m, BB_ERR_PEER,
                "rank %d on %s%s sent no heartbeat for %d seconds: its process hangs, or its host or the network is gone",
                first->rank, m->base.hosts[first->rank], others, longest->missed);
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *run(void *user) {
    bb_mpi *m = user;
    int64_t last_heartbeat = 0;
    pthread_mutex_lock(&m->lock);
    while (!m->closing) {
        int64_t t = nanoseconds(CLOCK_MONOTONIC);
        if (m->failure.code == BB_OK) {
            bb_mpi_progress_locked(m);
            if (t - last_heartbeat >= 1000000000) {
                exchange_heartbeats(m);
                last_heartbeat = t;
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
    if (m->base.rank == 0 && m->owns_mpi) bb_mpi_ping_launcher();
    int count = m->base.rank == 0 ? m->base.size - 1 : 1;
    m->peers = calloc((size_t)count, sizeof *m->peers);
    if (!m->peers) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a watch over %d processes", count);
    m->peer_count = count;
    for (int i = 0; i < count; i++) {
        m->peers[i].rank = m->base.rank == 0 ? i + 1 : 0;
        post_receive(m, &m->peers[i]);
        send_message(m, &m->peers[i], ALIVE);
    }
    if (pthread_create(&m->thread, NULL, run, m) != 0)
        return bb_fail(err, BB_ERR_MEMORY, "no thread for the exchange between processes");
    m->thread_runs = true;
    return BB_OK;
}

static bool all_sent(bb_mpi *m) {
    bool all = true;
    for (int i = 0; i < m->peer_count; i++) all = is_sent(m, &m->peers[i]) && all;
    return all;
}

static bool goodbye_sent(bb_mpi *m, void *user) {
    (void)user;
    if (!all_sent(m)) return false;
    if (m->ending) return true;
    m->ending = true;
    for (int i = 0; i < m->peer_count; i++) send_message(m, &m->peers[i], GOODBYE);
    return all_sent(m);
}

static bool goodbyes_received(bb_mpi *m, void *user) {
    (void)user;
    bool all = true;
    for (int i = 0; i < m->peer_count; i++) {
        receive_messages(m, &m->peers[i]);
        all = m->peers[i].ended && all;
    }
    return all;
}

void bb_mpi_watch_close(bb_mpi *m) {
    if (!m->thread_runs) return;
    bb_error ignored;
    if (bb_mpi_wait(m, goodbye_sent, NULL, &ignored) == BB_OK) (void)bb_mpi_wait(m, goodbyes_received, NULL, &ignored);
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    m->thread_runs = false;
}

static void pause_ns(int64_t ns) {
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) { /* after SIGTERM the launcher sends SIGKILL within a second */
    }
}

/* ---- without rank 0 nobody grants permission: the first rank that announces itself reports, low ranks first ---------------- */

static bool another_reports(bb_mpi *m, int64_t max_ns) {
    int64_t end = nanoseconds(CLOCK_MONOTONIC) + max_ns;
    int flag = 0;
    while (!flag && nanoseconds(CLOCK_MONOTONIC) < end) {
        pthread_mutex_lock(&m->lock);
        if (MPI_Iprobe(MPI_ANY_SOURCE, REPORTS_TAG, m->beats, &flag, MPI_STATUS_IGNORE) != MPI_SUCCESS) flag = 0;
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
    return flag != 0;
}

static void announce_report(bb_mpi *m) {
    static const int64_t empty = 0;
    pthread_mutex_lock(&m->lock);
    for (int r = 1; r < m->base.size; r++) {
        MPI_Request request;
        if (r != m->base.rank && MPI_Isend(&empty, 1, MPI_INT64_T, r, REPORTS_TAG, m->beats, &request) == MPI_SUCCESS)
            MPI_Request_free(&request);
    }
    pthread_mutex_unlock(&m->lock);
    (void)another_reports(m, 50000000); /* time for the messages to leave */
}

static void report_without_rank_0(bb_mpi *m) {
    int64_t quarters = m->base.rank == 1 ? 4 : 8 + (m->base.rank < 10 ? m->base.rank : 10); /* of a second */
    if (!another_reports(m, quarters * 250000000))
        announce_report(m);
    else
        pause_ns(REPORT_SECONDS * (int64_t)1000000000); /* the other rank ends this one meanwhile */
}

void bb_mpi_wait_to_report(bb_dist *d) {
    bb_mpi *m = (bb_mpi *)d;
    int64_t end = nanoseconds(CLOCK_MONOTONIC) + REPORT_SECONDS * (int64_t)1000000000;
    bool own = false, cut_off = false;
    while (!own && !cut_off && nanoseconds(CLOCK_MONOTONIC) < end) {
        pthread_mutex_lock(&m->lock);
        bool must_ask = !m->failing;
        m->failing = true;
        if (d->rank == 0 && m->first_failed < 0) m->first_failed = 0;
        own = m->first_failed == d->rank;
        cut_off = m->failure.code != BB_OK;
        if (!own && !cut_off && d->rank > 0) {
            if (must_ask && is_sent(m, m->peers)) send_message(m, m->peers, FAILING);
            receive_messages(m, m->peers);
        }
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
    if (!own && cut_off && d->rank > 0) report_without_rank_0(m);
}

void bb_mpi_order_end(bb_mpi *m) {
    bool ordered = false;
    for (int tries = 0; tries < 100; tries++) { /* one second for the orders to leave */
        pthread_mutex_lock(&m->lock);
        bool all = all_sent(m);
        for (int i = 0; i < m->peer_count && all && !ordered; i++) send_message(m, &m->peers[i], END);
        ordered = ordered || all;
        pthread_mutex_unlock(&m->lock);
        pause_ns(10000000);
    }
}
#endif
