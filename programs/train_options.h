// SPDX-License-Identifier: MIT
/* The options of `bitbyte train`, and the configuration that a resumed run or a model file brings. */
#ifndef BB_PROGRAMS_TRAIN_OPTIONS_H
#define BB_PROGRAMS_TRAIN_OPTIONS_H

#include "train_args.h"

extern const bb_cli_command bb_train_command; /* for messages */

/* Whether the command line says --ddp: asked before it is read, since then the ranks read it together. */
bool bb_train_wants_ranks(int argc, char **argv);
/* Reads the command line and, when resuming or starting from a file, the configuration that comes with it; checks everything
 * that needs neither memory nor data. Returns BB_CLI_CONTINUE or an exit status; bb_train_args_free in every case. */
int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args);
/* All ranks: the default --out of rank 0, as they may have started in different seconds. */
bb_status bb_train_args_share_out(bb_train_args *args, bb_dist *dist, bb_error *err);
void bb_train_args_free(bb_train_args *args);
/* Length of the longest sequences that the run will train on. */
int bb_train_longest(const bb_train_options *options);

#endif
