// SPDX-License-Identifier: MIT
#include "bitbyte.h"

void bb_recipe_options(bb_recipe recipe, bb_train_options *options, bb_optimizer_options *optimizer) {
    bb_train_options train;
    bb_optimizer_options optim;
    bb_train_options_default(&train);
    bb_optimizer_options_default(&optim);
    if (recipe == BB_RECIPE_BITBYTE) {
        optim.kind = BB_OPTIM_MUON;
        optim.lr = 0.03;
        train.lr_min_factor = 0;
    }
    if (options) {
        options->lr_schedule = train.lr_schedule;
        options->lr_min_factor = train.lr_min_factor;
        options->cooldown_frac = train.cooldown_frac;
        options->warmup_frac = train.warmup_frac;
        options->grad_clip = train.grad_clip;
    }
    if (optimizer) {
        optimizer->kind = optim.kind;
        optimizer->lr = optim.lr;
        optimizer->lr_adam = optim.lr_adam;
        optimizer->weight_decay = optim.weight_decay;
    }
}
