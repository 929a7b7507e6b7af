// SPDX-License-Identifier: MIT
/* Where a resumed run takes from what the command line does not say. */
#ifndef BB_PROGRAMS_TRAIN_RESUME_H
#define BB_PROGRAMS_TRAIN_RESUME_H

#include "train_args.h"

enum { BB_RUN_CONFIG_VERSION = 1 };

/* args->resume is given: fills the options that are not, the checkpoint, the output directory of a resumed run directory, and
 * what changes. Returns BB_CLI_CONTINUE or an exit status. */
int bb_train_resume(const bb_cli *cli, bb_train_args *args);

#endif
