// SPDX-License-Identifier: MIT
/* What the ranks of a job do together when one of them fails. */
#ifndef BB_PROGRAMS_TRAIN_RANKS_H
#define BB_PROGRAMS_TRAIN_RANKS_H

#include "bitbyte.h"

/* Reports a failure that all ranks know: only rank 0 prints it. Returns the exit status. */
int bb_train_fail_together(const bb_dist *dist, const bb_error *err);
/* Collective. Every rank calls part(user), which must not call the other ranks. Returns its result; if it fails on one rank, e.g.
 * because that cannot see a file, then on all, and rank 0 reports it. */
int bb_train_agree(bb_dist *dist, int (*part)(void *user), void *user);

#endif
