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
    o.lr = recipe == BB_RECIPE_BITBYTE ? 0.03 : defaults.lr;
    o.lr_adam = defaults.lr_adam;
    o.weight_decay = defaults.weight_decay;
    bb_options_write(given, &o, sizeof o);
}

void bb_recipe_options(bb_recipe recipe, bb_train_options *options, bb_optimizer_options *optimizer) {
<<<<<<< HEAD
    set_train(recipe, options);
    set_optimizer(recipe, optimizer);
=======
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
        optimizer->lr_ngram = optim.lr_ngram;
        optimizer->weight_decay = optim.weight_decay;
    }
>>>>>>> dc1cc8f (model: n-gram embeddings (--arch plus))
}
