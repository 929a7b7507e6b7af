// SPDX-License-Identifier: MIT
/* --minutes and --size: completes the options of a new run from a measured plan. */
#ifndef BB_PROGRAMS_TRAIN_PLAN_H
#define BB_PROGRAMS_TRAIN_PLAN_H

#include "train_args.h"

/* Sets the model's shape from --size. Returns BB_CLI_CONTINUE, or an exit status after an error. */
int bb_train_size(const bb_cli *cli, bb_train_args *args);
/* Checks the options beside --minutes. Returns BB_CLI_CONTINUE, or an exit status after an error. */
int bb_train_plan_check(const bb_cli *cli, const bb_train_args *args);
/* Collective. With --minutes: sets args->plan and the options that it decides. has_shape: args->model has the model's shape. A
 * failure is that of all ranks. */
bb_status bb_train_plan(const bb_cli *cli, bb_dist *dist, bool has_shape, bb_train_args *args, bb_error *err);

#endif
