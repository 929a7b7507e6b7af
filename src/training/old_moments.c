// SPDX-License-Identifier: MIT
#include "training/old_moments.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/adam8_map.h"

typedef struct name {
    char text[96];
} name;

static name moment_name(const char *prefix, const bb_param *p) {
    name n;
    (void)snprintf(n.text, sizeof n.text, "%s%s", prefix, p->name);
    return n;
}

bool bb_old_moments_found(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p) {
    return bb_optimizer_is_8bit(optimizer) && bb_optimizer_moments(optimizer->options.kind, p) == BB_MOMENTS_F32 &&
           !bb_tensor_source_find(st, moment_name("opt.m.", p).text) &&
           bb_tensor_source_find(st, moment_name("opt.m8.", p).text);
}

/* Computes x (p->count) from the codes and the blocks' absmax. The caller has checked that both exist. */
static bb_status decode(const bb_tensor_source *st, const bb_param *p, bool is_signed, float *x, bb_error *err) {
    int64_t n = p->count, blocks = bb_optimizer_blocks(n);
    uint8_t *codes = malloc((size_t)n);
    float *absmax = malloc((size_t)blocks * sizeof *absmax);
    bb_status status = BB_OK;
    if (!codes || !absmax) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for the moments of %s", p->name);
        goto done;
    }
    const char *code_prefix = is_signed ? "opt.m8." : "opt.v8.",
               *absmax_prefix = is_signed ? "opt.m8_absmax." : "opt.v8_absmax.";
    BB_TRY_GOTO(status, done,
                bb_tensor_source_read(st, bb_tensor_source_find(st, moment_name(code_prefix, p).text), codes, err));
    BB_TRY_GOTO(status, done,
                bb_tensor_source_read(st, bb_tensor_source_find(st, moment_name(absmax_prefix, p).text), absmax, err));
    for (int64_t i = 0; i < n; i++) x[i] = bb_adam8_value(codes[i], is_signed) * absmax[i / BB_ADAM8_BLOCK];
done:
    free(codes);
    free(absmax);
    return status;
}

bb_status bb_old_moments_read(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p, int64_t steps,
                              float **m, float **v, bb_error *err) {
    const bb_optimizer_options *o = &optimizer->options;
    double t = (double)steps;
    bb_adamw h = {.beta1 = o->beta1,
                  .beta2 = o->beta2,
                  .bias_correction1 = 1 - pow(o->beta1, t),
                  .bias_correction2 = 1 - pow(o->beta2, t)};
    float min_root_v = (float)sqrt(bb_adam8_min_v(&h));
    *m = calloc(2 * (size_t)p->count, sizeof **m);
    if (!*m) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the moments of %s", p->name);
    *v = *m + p->count;
    bb_status status = decode(st, p, true, *m, err);
    if (status == BB_OK) status = decode(st, p, false, *v, err);
    if (status != BB_OK) {
        free(*m);
        *m = NULL;
        return status;
    }
    for (int64_t i = 0; i < p->count; i++) {
        float min_root = min_root_v * (*m)[i];
        if (min_root * min_root > (*v)[i]) (*v)[i] = min_root * min_root;
    }
    return BB_OK;
}
