// SPDX-License-Identifier: MIT
/* Detects weights that are not finite. In a ternary matrix they would become ordinary codes and go unnoticed. */
#include <stdlib.h>

#include "core/finite.h"
#include "core/math.h"
#include "model/model.h"

enum { CHUNK = 1 << 16 }; /* elements */

/* Reports the first element of p that is not finite; BB_OK if all are. */
static bb_status check_values(const bb_model *m, const bb_param *p, float *buffer, bb_error *err) {
    for (int64_t at = 0; at < p->count; at += CHUNK) {
        int64_t n = bb_min(p->count - at, CHUNK);
        m->device->ops->copy_out(m->device, buffer, m->params + p->offset + at, (size_t)n * sizeof *buffer);
        BB_TRY(m->device->ops->sync(m->device, err));
        int64_t i = bb_find_not_finite(buffer, n);
        if (i < n)
            return bb_fail(err, BB_ERR_NUMERIC, "%s: element %lld is %s", p->name, (long long)(at + i),
                           bb_not_finite_name(buffer[i]));
    }
    return BB_OK;
}

/* The scale, a mean of absolute values, is finite if and only if all of them are: f32 values sum to a finite double. */
static bb_status check_ternary(const bb_model *m, int index, float *buffer, bb_error *err) {
    const bb_param *p = &m->table.entries[index];
    float scale;
    m->device->ops->copy_out(m->device, &scale, bb_model_ternary(m, index).scale, sizeof scale);
    BB_TRY(m->device->ops->sync(m->device, err));
    if (isfinite(scale)) return BB_OK;
    if (p->offset >= 0) BB_TRY(check_values(m, p, buffer, err));
    /* An element that another rank updates. */
    return bb_fail(err, BB_ERR_NUMERIC, "%s: an element is not finite", p->name);
}

bb_status bb_model_check_finite(bb_model *m, bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    float *buffer = malloc(CHUNK * sizeof *buffer);
    if (!buffer) return bb_fail(err, BB_ERR_MEMORY, "out of memory while checking the weights");
    bb_status status = BB_OK;
    bb_model_prepare(m);
    for (int i = 0; i < m->table.count && status == BB_OK; i++) {
        const bb_param *p = &m->table.entries[i];
        if (p->offset < 0 && p->ngram) continue; /* codes are finite, and so were the values in the file */
        status = p->ternary ? check_ternary(m, i, buffer, err) : check_values(m, p, buffer, err);
    }
    free(buffer);
    return status;
}
