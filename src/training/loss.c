// SPDX-License-Identifier: MIT
/* Bits per byte, and the dynamic loss scaler. */
#include "training/loss.h"

#include <math.h>
#include <stdlib.h>

double bb_bits_per_byte(double loss_nats) { return loss_nats / 0.69314718055994530942; }

bb_status bb_loss_scaler_create(double initial_scale, int growth_interval, bool enabled, bb_loss_scaler **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    if (enabled && (!(initial_scale > 0) || !isfinite(initial_scale) || growth_interval < 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "loss scaler: initial_scale %g must be positive and growth_interval %d at least 1",
                       initial_scale, growth_interval);
    bb_loss_scaler *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a loss scaler");
    *s = (bb_loss_scaler){.enabled = enabled, .scale = initial_scale, .growth_interval = growth_interval};
    *out = s;
    return BB_OK;
}

void bb_loss_scaler_free(bb_loss_scaler *scaler) { free(scaler); }

double bb_loss_scaler_scale(const bb_loss_scaler *s) { return s && s->enabled ? s->scale : 1; }

void bb_loss_scaler_update(bb_loss_scaler *s, bool found_overflow) {
    if (!s || !s->enabled) return;
    if (found_overflow) {
        if (s->scale > 1) s->scale = fmax(s->scale / 2, 1); /* at 1 there was no overflow that a scale caused */
        s->good_steps = 0;
    } else if (++s->good_steps >= s->growth_interval) {
        if (isfinite((float)(2 * s->scale))) s->scale *= 2;
        s->good_steps = 0;
    }
}
