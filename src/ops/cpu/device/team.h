// SPDX-License-Identifier: MIT
/* The threads of operations on few rows. Those take microseconds each and follow one another by the hundred for a byte that is
 * generated: OpenMP's parallel regions, with a system call at each barrier, would take a quarter of that time (libgomp wakes
 * sleepers at each barrier, whether there are any or not). A team's threads watch one place in memory for some tenths of a
 * millisecond before they sleep. Units of work are shared out so that each thread reads memory in one run; who is done takes
 * from the end of another's share. Which thread takes a unit depends on chance, what it computes does not. A thread that has
 * nothing to do fetches what it will read next into its second-level cache.
 *
 * Where another program keeps a thread from its processor again and again, for more than a millisecond each time, the caller
 * works alone for a while: with two threads and two such programs on two cores, three to four times as fast as waiting.
 * OMP_WAIT_POLICY=passive makes these threads sleep at once. */
#ifndef BB_OPS_CPU_TEAM_H
#define BB_OPS_CPU_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bb_team bb_team;

/* A thread that had to leave its processor to another program is waited for as long as that program computes, in every run. So after
 * several such waits the caller does some runs alone, twice as many each time, until the others are back. */
typedef struct bb_team_rest {
    int lateness;         /* of recent runs: rises with each late one, falls with each other */
    int resting;          /* runs left of the present rest */
    int length, min, max; /* of the next rest, in runs */
} bb_team_rest;

void bb_team_rest_init(bb_team_rest *rest, int threads);
/* Before a run: whether the caller does it alone. */
bool bb_team_rest_next(bb_team_rest *rest);
/* After a run that was not done alone. late: some thread was waited for so long that it can't have been on a processor. */
void bb_team_rest_after(bb_team_rest *rest, bool late);

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
