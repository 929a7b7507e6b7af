// SPDX-License-Identifier: MIT
/* The threads of operations on few rows. Those take microseconds each and follow one another by the hundred for a byte that is
 * generated: OpenMP's parallel regions, with a system call at each barrier, would take a quarter of that time. A thread that
 * has nothing to do fetches what it will read next. */
#ifndef BB_OPS_CPU_TEAM_H
#define BB_OPS_CPU_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bb_team bb_team;

/* On each thread of a team, 0 being the caller's. */
typedef void bb_team_work(void *user, bb_team *team, int thread);

/* What is read next: `units` of unit_bytes each, of which each thread will begin with its share. */
typedef struct bb_team_fetch {
    const void *data; /* NULL: nothing is known */
    int64_t units, unit_bytes;
} bb_team_fetch;

/* threads >= 1. Threads are started by the first run that needs them. NULL: out of memory. */
bb_team *bb_team_create(int threads);
void bb_team_free(bb_team *team);

/* Calls work on all threads, or on the caller's alone, and returns when it has returned on each; on the caller's, too, for a
 * while after another program kept one of them from its processor. The units 0 .. units-1 (< 2^31) are shared out: */
void bb_team_run(bb_team *team, bool alone, int64_t units, bb_team_work *work, void *user, bb_team_fetch then);
/* The next unit for a thread, -1: there is none left. First those of its share, one after the other; then the last ones of
 * other shares. Which thread takes a unit is not determined. */
int64_t bb_team_take(bb_team *team, int thread);

#endif
