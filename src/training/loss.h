// SPDX-License-Identifier: MIT
/* The state of the loss scaler, which is saved in checkpoints. */
#ifndef BB_TRAINING_LOSS_H
#define BB_TRAINING_LOSS_H

#include "core/status.h"

struct bb_loss_scaler {
    bool enabled;
    double scale;
    int growth_interval, good_steps;
};

#endif
