// SPDX-License-Identifier: MIT
#include "modelfile/model_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/finite.h"
#include "modelfile/dequantize.h"
#include "modelfile/packed_codes.h"

bb_status bb_model_source_refuse_packed(const bb_model_source *w, bb_error *err) {
    if (!w->layout->packed) return BB_OK;
    return bb_fail(
        err, BB_ERR_ARGUMENT,
        "%s: the weights are packed at two bits, which eval and generate can use; training needs the original checkpoint",
        bb_tensor_source_path(w->source));
}

/* ---- values ------------------------------------------------------------------------------------------------------------ */

typedef struct scan {
    const bb_model_source *w;
    bb_values_visit visit;
    void *user;
    int64_t first;   /* parameter index of the current part's first element */
    float *values;   /* one piece of values */
    float *permute;  /* a whole part whose rows need reordering; else NULL */
    int64_t columns; /* of packed codes: columns and scale */
    float scale;
} scan;

static bb_status check_finite(const bb_model_source *w, const bb_file_tensor *t, int64_t first, const float *values, int64_t n,
                              bb_error *err) {
    int64_t i = bb_find_not_finite(values, n);
    if (i < n)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': element %lld is %s, expected a finite number",
                       bb_tensor_source_path(w->source), t->name, (long long)(first + i), bb_not_finite_name(values[i]));
    return BB_OK;
}

/* Chunks that stay in the cache. */
enum { CHUNK = 1 << 14 };

static bb_status visit_piece(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                             bb_error *err) {
    const scan *s = user;
    int64_t n = bb_file_elements(t->dtype, size), first = bb_file_elements(t->dtype, at);
    for (int64_t i = 0; i < n; i += CHUNK) { /* a multiple of every block size */
        int64_t count = n - i < CHUNK ? n - i : CHUNK;
        float *values = s->permute ? s->permute + first + i : s->values;
        bb_dequantize(t->dtype, piece + i / bb_file_dtype_elements(t->dtype) * (int64_t)bb_file_dtype_bytes(t->dtype), count,
                      values);
        BB_TRY(check_finite(s->w, t, first + i, values, count, err));
        if (!s->permute) BB_TRY(s->visit(s->user, s->first + first + i, values, count, err));
    }
    return BB_OK;
}

/* Unpacks four codes a byte; the last byte of a row may hold fewer. */
static bb_status unpack_piece(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                              bb_error *err) {
    const scan *s = user;
    uint64_t row_bytes = (uint64_t)t->shape[1];
    BB_TRY(bb_packed_check_codes(s->w->source, t, at, piece, size, err));
    for (size_t i = 0; i < size; i += CHUNK / 4) {
        size_t end = size - i < CHUNK / 4 ? size : i + CHUNK / 4;
        int64_t n = 0, first = (int64_t)((at + i) / row_bytes) * s->columns + (int64_t)((at + i) % row_bytes) * 4;
        for (size_t b = i; b < end; b++) {
            int64_t column = (int64_t)((at + b) % row_bytes) * 4;
            for (int k = 0; k < 4 && column + k < s->columns; k++)
                s->values[n++] = s->scale * (float)((piece[b] >> k * 2 & 3) - 1);
        }
        BB_TRY(s->visit(s->user, first, s->values, n, err));
    }
    return BB_OK;
}

/* Reorders rows 2i, 2i+1 of a head to rows i, i + D/2. */
static bb_status visit_permuted(const scan *s, const bb_file_tensor *t, int heads, bb_error *err) {
    int64_t rows = t->shape[0], K = t->shape[1], D = heads > 0 ? rows / heads : 0;
    if (D < 2)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected rows of %d heads, found %lld rows",
                       bb_tensor_source_path(s->w->source), t->name, heads, (long long)rows);
    for (int64_t n = 0; n < rows; n++) {
        int64_t head = n / D, d = n % D, from = head * D + (d < D / 2 ? 2 * d : 2 * (d - D / 2) + 1);
        BB_TRY(s->visit(s->user, s->first + n * K, s->permute + from * K, K, err));
    }
    return BB_OK;
}

bb_status bb_model_source_scan(const bb_model_source *w, const bb_param *p, const bb_weight *weight, bb_values_visit visit,
                               void *user, bb_error *err) {
    scan s = {.w = w, .visit = visit, .user = user, .columns = p->shape[1], .scale = weight->scale};
    bb_status status = BB_OK;
    size_t buffer = weight->interleaved_heads ? (size_t)p->count : CHUNK;
    float *memory = malloc(buffer * sizeof *memory);
    if (!memory)
        return bb_fail(err, BB_ERR_MEMORY, "%s: tensor '%s': no memory to read it", bb_tensor_source_path(w->source), p->name);
    *(weight->interleaved_heads ? &s.permute : &s.values) = memory;
    for (int i = 0; i < weight->part_count && status == BB_OK; i++) {
        const bb_file_tensor *t = weight->parts[i];
        status = bb_tensor_source_scan(w->source, t, weight->packed ? unpack_piece : visit_piece, &s, err);
        if (status == BB_OK && s.permute) status = visit_permuted(&s, t, weight->interleaved_heads, err);
        s.first += bb_file_elements(t->dtype, t->bytes);
    }
    free(memory);
    return status;
}

void bb_magnitudes_begin(bb_magnitudes *m) { *m = (bb_magnitudes){.g = 1e-8f, .ternary = true}; }

void bb_magnitudes_add(bb_magnitudes *m, int64_t first, const float *values, int64_t n) {
    int64_t i = 0, others = 0;
    if (!m->ternary) return;
    if (m->nonzero == 0) {
        while (i < n && !(fabsf(values[i]) > 0)) i++;
        if (i < n) m->g = fabsf(values[i]);
    }
    const float g = m->g;
    for (int64_t k = i; k < n; k += CHUNK) {
        int nonzero_here = 0, others_here = 0; /* as wide as the values, so that the loop vectorizes */
        for (int64_t end = n - k < CHUNK ? n : k + CHUNK, j = k; j < end; j++) {
            float a = fabsf(values[j]);
            nonzero_here += a > 0;
            others_here += (a > 0) & ((a < g) | (a > g));
        }
        m->nonzero += nonzero_here;
        others += others_here;
    }
    if (others == 0) return;
    m->ternary = false;
    while (!(fabsf(values[i]) > 0) || !(fabsf(values[i]) < m->g || fabsf(values[i]) > m->g)) i++;
    m->other = first + i;
    m->other_value = values[i];
}

static bb_status add_magnitudes(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    (void)err;
    bb_magnitudes_add(user, first, values, n);
    return BB_OK;
}

bb_status bb_model_source_magnitudes(const bb_model_source *w, const bb_param *p, const bb_weight *weight, bb_magnitudes *out,
                                     bb_error *err) {
    bb_magnitudes_begin(out);
    return bb_model_source_scan(w, p, weight, add_magnitudes, out, err);
}

float bb_magnitudes_master_factor(const bb_magnitudes *m, int64_t count) {
    return m->ternary && m->nonzero > 0 ? (float)((double)count / (double)m->nonzero) : 1;
}

/* ---- weights that are not ternary -------------------------------------------------------------------------------------- */

void bb_latent_weights_add(bb_latent_weights *l, const bb_param *p, const bb_magnitudes *m) {
    if (m->ternary) return;
    if (l->count++ == 0) {
        l->first = p;
        l->magnitudes = *m;
    }
}

void bb_latent_weights_notify(const bb_latent_weights *l, const bb_model_source *w,
                              void (*on_notice)(void *user, const char *text), void *user) {
    char text[512];
    if (!on_notice || l->count == 0) return;
    (void)snprintf(text, sizeof text,
                   "%.200s: %d of its matrices, %s first, are not -g, 0 and g with one g; their values are used as f32 "
                   "masters, from which training derives ternary weights",
                   bb_tensor_source_path(w->source), l->count, l->first->name);
    on_notice(user, text);
}

bb_status bb_latent_weights_refuse(const bb_model_source *w, const bb_param *p, const bb_magnitudes *m, bb_error *err) {
    return bb_fail(err, BB_ERR_UNSUPPORTED,
                   "%s: %s: expected ternary weights, -g, 0 and g with one g, found %g and, at (%lld, %lld), %g; such values "
                   "can only be used as masters for training (train --init)",
                   bb_tensor_source_path(w->source), p->name, (double)m->g, (long long)(m->other / p->shape[1]),
                   (long long)(m->other % p->shape[1]), (double)m->other_value);
}
