// SPDX-License-Identifier: MIT
/* Reads the command line of `bitbyte train` and completes it from a resumed run or a model file. */
#ifndef BB_PROGRAMS_TRAIN_OPTIONS_H
#define BB_PROGRAMS_TRAIN_OPTIONS_H

#include "train_args.h"

/* Returns whether the command line has --ddp. Needed before parsing, because ranks parse together. */
bool bb_train_has_ddp(int argc, char **argv);
/* Collective. Parses the command line, merges the configuration of a resumed run or a model file, and checks everything that needs neither
 * memory nor data. Returns BB_CLI_CONTINUE or an exit status; call bb_train_args_free in every case. */
int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args);
/* Collective. Gives all ranks the default --out of rank 0; they may have started in different seconds. */
bb_status bb_train_args_sync_out(bb_train_args *args, bb_dist *dist, bb_error *err);
void bb_train_args_free(bb_train_args *args);
/* Returns the length of the longest sequences that the run will train on. */
int bb_train_max_seq_len(const bb_train_options *options);

#endif
