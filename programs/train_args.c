// SPDX-License-Identifier: MIT
#include "train_args.h"

bb_optimizer_options bb_train_optimizer_options(const bb_train_args *args, bb_dist *dist) {
    bb_optimizer_options optimizer;
    bb_optimizer_options_default(&optimizer);
    optimizer.kind = (bb_optimizer_kind)args->optim;
    optimizer.lr = args->lr;
    optimizer.lr_adam = args->lr_adam;
    optimizer.lr_ngram = args->lr_ngram;
    optimizer.momentum = args->muon_momentum;
    optimizer.muon_iterations = args->muon_iterations;
    optimizer.weight_decay = args->wd;
    optimizer.decay_all = args->wd_all;
    optimizer.share_over = args->zero ? dist : NULL;
    return optimizer;
}

bb_status bb_train_device_open(const bb_train_args *args, bb_dist *dist, bb_device **out, bb_error *err) {
    bb_device_args device = args->device;
    if (device.threads == 0 && bb_dist_size(dist) > 1) device.threads = bb_dist_threads(dist);
    return bb_device_args_open(&device, dist, out, err);
}
