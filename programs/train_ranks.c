// SPDX-License-Identifier: MIT
#include "train_ranks.h"

#include "cli_message.h"
#include "train_args.h"

int bb_train_fail_together(const bb_dist *dist, const bb_error *err) {
    bb_error unsaid;
    if (bb_dist_rank(dist) > 0) bb_cli_redirect(&unsaid);
    int exit_status = bb_cli_fail(&bb_train_command, err);
    bb_cli_redirect(NULL);
    return exit_status;
}

int bb_train_agree(bb_dist *dist, int (*part)(void *user), void *user) {
    if (bb_dist_size(dist) == 1) return part(user);
    bb_error err = {.code = BB_OK};
    bb_cli_redirect(&err);
    int exit_status = part(user);
    bb_cli_redirect(NULL);
    return bb_dist_agree(dist, err.code, &err) == BB_OK ? exit_status : bb_train_fail_together(dist, &err);
}
