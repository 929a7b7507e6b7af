// SPDX-License-Identifier: MIT
/* A bound for what MPI alone decides. Its start and its end wait for every process of the job and can't be given up: should
 * one of them hang then, or its host get lost, this process says so and ends, and the launcher ends the others. */
#ifdef BB_HAVE_MPI
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

enum { GUARD_SECONDS = 24, RANKS_A_SECOND = 100 }; /* the more ranks, the longer it may take */

/* What launchers tell a process before MPI does: Open MPI, PMIx, Slurm, MPICH. */
static int told(const char *const *names, int otherwise) {
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && *text) return atoi(text);
    }
    return otherwise;
}
static int rank_of_this(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "PMI_RANK", NULL};
    return told(names, 0);
}
static int size_of_job(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "PMI_SIZE", NULL};
    return told(names, 1);
}

/* Seconds in which this thread itself ran are counted, as in the watch: a job may be stopped as a whole, and go on. */
static void *count(void *user) {
    bb_mpi_guard *g = user;
    int rank = rank_of_this(), seconds = GUARD_SECONDS + size_of_job() / RANKS_A_SECOND;
    int quiet = rank < 2 ? rank : 3; /* the lowest that is well speaks, and its end ends the others */
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
    g->runs = pthread_create(&g->thread, NULL, count, g) == 0; /* without it, all is as it would be */
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
