// SPDX-License-Identifier: MIT
#include "modelfile/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/finite.h"
#include "model/config.h"
#include "model/model.h"

bb_status bb_model_file_config(const bb_tensor_source *st, bb_config *out, bb_error *err) {
    const char *text = bb_tensor_source_metadata(st, "config");
    if (!text)
        return bb_fail(err, BB_ERR_FORMAT, "%s: not a model: __metadata__ has no 'config' (expected its configuration as JSON)",
                       bb_tensor_source_path(st));
    return bb_config_from_json(text, bb_tensor_source_path(st), out, err);
}

int bb_model_file_trained_length(const bb_tensor_source *st) {
    const char *text = bb_tensor_source_metadata(st, "trained_length");
    long n = text ? strtol(text, NULL, 10) : 0;
    return n > 0 && n <= 1 << 24 ? (int)n : BB_DEFAULT_TRAINED_LENGTH;
}

bool bb_model_file_is_packed(const bb_tensor_source *st) {
    const char *format = bb_tensor_source_metadata(st, "format");
    return format && strcmp(format, BB_PACKED_FILE_FORMAT) == 0;
}

bb_status bb_model_file_refuse_packed(const bb_tensor_source *st, bb_error *err) {
    if (!bb_model_file_is_packed(st)) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "%s: its weights are packed at two bits, for eval and generate; training needs the checkpoint that it was "
                   "exported from",
                   bb_tensor_source_path(st));
}

bb_status bb_config_load(const char *path, bb_config *out, int *trained_length, bb_error *err) {
    bb_tensor_source *st;
    BB_TRY(bb_tensor_source_open(path, &st, err));
    bb_status status = bb_model_file_config(st, out, err);
    if (status == BB_OK && trained_length) *trained_length = bb_model_file_trained_length(st);
    bb_tensor_source_close(st);
    return status;
}

bb_status bb_model_file_packed_tensor(const bb_tensor_source *st, const bb_param *p, const bb_file_tensor **codes, float *scale,
                                      bb_error *err) {
    char name[sizeof p->name + sizeof BB_SCALE_SUFFIX];
    const bb_file_tensor *t = bb_tensor_source_find(st, p->name), *s;
    int64_t columns = (p->shape[1] + 3) / 4, one = 1;
    if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", bb_tensor_source_path(st), p->name);
    if (t->dtype != BB_FILE_U8 || t->rank != 2 || t->shape[0] != p->shape[0] || t->shape[1] != columns)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected U8 (%lld,%lld), found %llu bytes of %s",
                       bb_tensor_source_path(st), p->name, (long long)p->shape[0], (long long)columns,
                       (unsigned long long)t->bytes, bb_file_dtype_name(t->dtype));
    (void)snprintf(name, sizeof name, "%s" BB_SCALE_SUFFIX, p->name);
    BB_TRY(bb_tensor_source_require(st, name, BB_FILE_F32, 1, &one, &s, err));
    BB_TRY(bb_tensor_source_read(st, s, scale, err));
    if (!isfinite(*scale) || !(*scale > 0))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected a finite scale above 0, found %g",
                       bb_tensor_source_path(st), name, (double)*scale);
    *codes = t;
    return BB_OK;
}

bb_status bb_model_file_check_finite(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                     bb_error *err) {
    const char *path = user;
    int64_t n = (int64_t)(size / sizeof(float));
    if (t->dtype != BB_FILE_F32) return BB_OK;
    int64_t i = bb_find_not_finite(piece, n);
    if (i == n) return BB_OK;
    float value;
    memcpy(&value, piece + (size_t)i * sizeof value, sizeof value);
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': element %llu is %s, expected a finite number", path, t->name,
                   (unsigned long long)(at / sizeof value) + (unsigned long long)i, bb_not_finite_name(value));
}

bb_status bb_model_file_check_codes(const char *path, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                    bb_error *err) {
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) any |= (uint8_t)(piece[i] & piece[i] >> 1 & 0x55);
    for (size_t i = 0; any && i < size; i++)
        if (piece[i] & piece[i] >> 1 & 0x55)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': byte %llu is 0x%02x: expected codes 0 to 2, found a 3", path,
                           t->name, (unsigned long long)(at + i), piece[i]);
    return BB_OK;
}
