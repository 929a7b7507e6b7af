// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

void bb_ref_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm) {
    int64_t C = norm->C;
    const float *w = norm->w;
    float *row = (float *)bb_ref_scratch(dev, (size_t)C);
    if (!row) return;
    for (int64_t m = 0; m < norm->M; m++, x += C) {
        double sum = 0;
        for (int64_t c = 0; c < C; c++) sum += (double)x[c] * (double)x[c];
        double inverse = 1.0 / sqrt(sum / (double)C + (double)norm->eps);
        for (int64_t c = 0; c < C; c++) row[c] = (float)((double)x[c] * (double)w[c] * inverse);
        bb_ref_store_row(y, m, row, C);
        r[m] = (float)inverse;
    }
}

void bb_ref_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                             const bb_norm *norm) {
    int64_t C = norm->C;
    const float *w = norm->w;
    double *dw_sum = bb_ref_scratch(dev, (size_t)C);
    if (!dw_sum) return;
    for (int64_t c = 0; c < C; c++) dw_sum[c] = (double)dw[c];
    for (int64_t m = 0; m < norm->M; m++) {
        const float *xm = x + m * C, *dym = (const float *)dy + m * C;
        double rm = (double)r[m], dot = 0;
        for (int64_t c = 0; c < C; c++) dot += (double)w[c] * (double)dym[c] * (double)xm[c];
        for (int64_t c = 0; c < C; c++) {
            double through = rm * (double)w[c] * (double)dym[c], along = (double)xm[c] * rm * rm * rm / (double)C * dot;
            dx[m * C + c] = (float)((double)dx[m * C + c] + through - along);
            dw_sum[c] += (double)dym[c] * (double)xm[c] * rm;
        }
    }
    for (int64_t c = 0; c < C; c++) dw[c] = (float)dw_sum[c];
}
