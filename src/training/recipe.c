// SPDX-License-Identifier: MIT
#include "core/options.h"

static void set_train(bb_recipe recipe, bb_train_options *given) {
    bb_train_options o, defaults;
    bb_train_options_default(&defaults);
    o = defaults;
    if (!given || bb_options_read(&o, sizeof o, given, "bb_train_options", NULL) != BB_OK) return;
    o.lr_schedule = defaults.lr_schedule;
    o.lr_min_factor = recipe == BB_RECIPE_BITBYTE ? 0 : defaults.lr_min_factor;
    o.cooldown_frac = defaults.cooldown_frac;
    o.warmup_frac = defaults.warmup_frac;
    o.grad_clip = defaults.grad_clip;
    bb_options_write(given, &o, sizeof o);
}

static void set_optimizer(bb_recipe recipe, bb_optimizer_options *given) {
    bb_optimizer_options o, defaults;
    bb_optimizer_options_default(&defaults);
    o = defaults;
    if (!given || bb_options_read(&o, sizeof o, given, "bb_optimizer_options", NULL) != BB_OK) return;
    o.kind = recipe == BB_RECIPE_BITBYTE ? BB_OPTIM_MUON : defaults.kind;
    o.lr = recipe == BB_RECIPE_BITBYTE ? 0.04 : defaults.lr;
    o.lr_adam = defaults.lr_adam;
    o.lr_ngram = defaults.lr_ngram;
    o.weight_decay = defaults.weight_decay;
    o.momentum = defaults.momentum;
    o.muon_iterations = defaults.muon_iterations;
    bb_options_write(given, &o, sizeof o);
}

void bb_recipe_options(bb_recipe recipe, bb_train_options *options, bb_optimizer_options *optimizer) {
    set_train(recipe, options);
    set_optimizer(recipe, optimizer);
}
