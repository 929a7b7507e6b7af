// SPDX-License-Identifier: MIT
/* A model small enough to train in tests. */
#ifndef BB_TESTS_TINY_MODEL_H
#define BB_TESTS_TINY_MODEL_H

#include "bitbyte.h"

/* Two blocks, with heads that share keys and values. */
static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 2,
                               .d_model = 48,
                               .n_head = 4,
                               .n_kv_head = 2,
                               .d_ff = 80,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

#endif
