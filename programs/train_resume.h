// SPDX-License-Identifier: MIT
/* Completes the options of a resumed run from its saved configuration. */
#ifndef BB_PROGRAMS_TRAIN_RESUME_H
#define BB_PROGRAMS_TRAIN_RESUME_H

#include "train_args.h"

enum { BB_RUN_CONFIG_VERSION = 1 };

/* For args->resume: sets the options that were not given, the checkpoint, the output directory when resuming a run directory,
 * and `changes`. Returns BB_CLI_CONTINUE or an exit status. */
int bb_train_resume(const bb_cli *cli, bb_train_args *args);

#endif
