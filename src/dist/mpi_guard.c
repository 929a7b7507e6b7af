// SPDX-License-Identifier: MIT
/* A time limit for MPI_Init and MPI_Finalize, which wait for every process of the job and can't be cancelled. If a process hangs
 * or its host is lost meanwhile, this one reports it and exits, and the launcher ends the others. */
#ifdef BB_HAVE_MPI
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

enum { GUARD_SECONDS = 24, RANKS_PER_SECOND = 100 }; /* more ranks are given more time */

/* Environment variables of launchers, for use before MPI_Init: Open MPI, PMIx, Slurm, MPICH. */
static int first_number(const char *const *names, int fallback) {
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && *text) return atoi(text);
    }
    return fallback;
}
static int rank_of_this(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "PMI_RANK", NULL};
    return first_number(names, 0);
}
static int size_of_job(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "PMI_SIZE", NULL};
    return first_number(names, 1);
}

/* Counts seconds in which this thread ran, like the heartbeats: a job may be suspended as a whole and continued. */
static void *count(void *user) {
    bb_mpi_guard *g = user;
    int rank = rank_of_this(), seconds = GUARD_SECONDS + size_of_job() / RANKS_PER_SECOND;
    int quiet = rank < 2 ? rank : 3; /* the lowest healthy rank reports; its exit ends the others */
    pthread_mutex_lock(&g->lock);
    for (int passed = 0; !g->over && passed < seconds + quiet; passed++) {
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec++;
        while (!g->over && pthread_cond_timedwait(&g->wake, &g->lock, &deadline) == 0) {
        }
    }
    bool over = g->over;
    pthread_mutex_unlock(&g->lock);
    if (over) return NULL;
    char host[64] = "";
    if (gethostname(host, sizeof host - 1) != 0) host[0] = '?';
    fprintf(stderr,
            "bitbyte: rank %d on %s: MPI did not %s within %d seconds: one of the job's %d processes hangs, or its host or the "
            "network is gone\n",
            rank, host, g->doing, seconds, size_of_job());
    bb_mpi_end_launcher(3);
    _exit(1);
}

void bb_mpi_guard_begin(bb_mpi_guard *g, const char *doing) {
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    g->doing = doing;
    g->over = false;
    g->runs = pthread_create(&g->thread, NULL, count, g) == 0; /* optional: without the thread there is no limit */
}

void bb_mpi_guard_end(bb_mpi_guard *g) {
    pthread_mutex_lock(&g->lock);
    g->over = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    if (g->runs) pthread_join(g->thread, NULL);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
}
#endif
