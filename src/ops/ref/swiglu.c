// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

void bb_ref_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F) {
    float *row = (float *)bb_ref_scratch(dev, (size_t)F);
    if (!row) return;
    for (int64_t m = 0; m < M; m++) {
        const float *gate = gate_up + m * 2 * F, *up = gate + F;
        for (int64_t f = 0; f < F; f++) row[f] = (float)((double)gate[f] * sigmoid((double)gate[f]) * (double)up[f]);
        bb_ref_store_row(y, m, row, F);
    }
    if (kept) memcpy(kept, gate_up, (size_t)(M * 2 * F) * sizeof *gate_up);
}

void bb_ref_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F) {
    (void)dev;
    for (int64_t m = 0; m < M; m++) {
        const float *gate = (const float *)gate_up + m * 2 * F, *up = gate + F, *dhm = (const float *)dh + m * F;
        float *d_gate = (float *)d_gate_up + m * 2 * F, *d_up = d_gate + F;
        for (int64_t f = 0; f < F; f++) {
            double z = (double)gate[f], sig = sigmoid(z), grad = (double)dhm[f];
            d_gate[f] = (float)(grad * (double)up[f] * sig * (1.0 + z * (1.0 - sig)));
            d_up[f] = (float)(grad * z * sig);
        }
    }
}
