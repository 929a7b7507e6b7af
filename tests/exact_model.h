// SPDX-License-Identifier: MIT
/* Model files whose weights survive every format. */
#ifndef BB_TESTS_EXACT_MODEL_H
#define BB_TESTS_EXACT_MODEL_H

#include "support.h"

#include "core/rng.h"
#include "model/model.h"

/* Saves a model whose ternary weights are half 0 and half +-2 scale: their mean |w| is exactly `scale`, and if f16 can
 * represent that, every conversion is exact. scale 0: random weights. */
static inline void exact_model_save(bb_device *device, const bb_config *config, float scale, const char *path) {
    bb_model *m;
    assert_ok(bb_model_create(device, config, 3, &m, &test_error));
    for (int i = 0; i < bb_model_tensor_count(m) && scale > 0; i++) {
        bb_tensor_info info;
        assert_ok(bb_model_tensor_info(m, i, &info, &test_error));
        size_t n = (size_t)(info.shape[0] * (info.rank == 2 ? info.shape[1] : 1));
        float *w = calloc(n, sizeof *w);
        for (size_t k = 0; k < n; k++)
            if ((k + k / 64) % 2) w[k] = bb_rng_below(5, BB_STREAM_TEST, k + n, 2) ? 2 * scale : -2 * scale;
        if (info.ternary) assert_ok(bb_model_set_tensor(m, info.name, w, n, &test_error));
        free(w);
    }
    m->trained_length = 777;
    assert_ok(bb_model_save(m, path, &test_error));
    bb_model_free(m);
}

#endif
