// SPDX-License-Identifier: MIT
/* Our own files: SPEC's parameter names, with the configuration as JSON in the metadata; f32, or ternary weights at two
 * bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/model.h"
#include "modelfile/layouts.h"

static bb_status read_config(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err) {
    const char *text = bb_tensor_source_metadata(s, "config");
    (void)options;
    if (!text)
        return bb_fail(err, BB_ERR_FORMAT, "%s: not a model: __metadata__ has no 'config' (expected the configuration as JSON)",
                       bb_tensor_source_path(s));
    return bb_config_from_json(text, bb_tensor_source_path(s), out, err);
}

int bb_layout_trained_length(const bb_tensor_source *s, const char *key) {
    const char *text = bb_tensor_source_metadata(s, key ? key : "trained_length");
    long n = text ? strtol(text, NULL, 10) : 0;
    return n > 0 && n <= 1 << 24 ? (int)n : BB_DEFAULT_TRAINED_LENGTH;
}

static bool has_config(const bb_tensor_source *s) { return bb_tensor_source_metadata(s, "config") != NULL; }

static bool is_packed(const bb_tensor_source *s) {
    const char *format = bb_tensor_source_metadata(s, "format");
    return format && strcmp(format, BB_PACKED_FILE_FORMAT) == 0;
}

static bool is_bitbyte(const bb_tensor_source *s) { return has_config(s) && !is_packed(s); }

static bb_status find(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    *out = (bb_weight){.part_count = 1};
    return bb_tensor_source_require(w->source, p->name, BB_FILE_F32, p->rank, p->shape, &out->parts[0], err);
}

/* Finds 8-bit codes with a scale for each row. */
static bb_status find_rows(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    char name[sizeof p->name + sizeof BB_SCALE_SUFFIX];
    *out = (bb_weight){.part_count = 1};
    BB_TRY(bb_tensor_source_require(w->source, p->name, BB_FILE_I8, 2, p->shape, &out->parts[0], err));
    (void)snprintf(name, sizeof name, "%s" BB_SCALE_SUFFIX, p->name);
    return bb_tensor_source_require(w->source, name, BB_FILE_BF16, 1, p->shape, &out->row_scales, err);
}

static bb_status find_packed(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    const bb_tensor_source *s = w->source;
    char name[sizeof p->name + sizeof BB_SCALE_SUFFIX];
    int64_t codes[2] = {p->shape[0], (p->shape[1] + 3) / 4}, one = 1;
    const bb_file_tensor *scale;
    if (p->ngram) return find_rows(w, p, out, err);
    if (!p->ternary) return find(w, p, out, err);
    *out = (bb_weight){.part_count = 1, .packed = true};
    BB_TRY(bb_tensor_source_require(s, p->name, BB_FILE_U8, 2, codes, &out->parts[0], err));
    (void)snprintf(name, sizeof name, "%s" BB_SCALE_SUFFIX, p->name);
    BB_TRY(bb_tensor_source_require(s, name, BB_FILE_F32, 1, &one, &scale, err));
    BB_TRY(bb_tensor_source_read(s, scale, &out->scale, err));
    if (isfinite(out->scale) && out->scale > 0) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected a finite scale above 0, found %g", bb_tensor_source_path(s),
                   name, (double)out->scale);
}

const bb_model_layout bb_layout_bitbyte = {.name = "bitbyte", .matches = is_bitbyte, .read_config = read_config, .find = find};
const bb_model_layout bb_layout_packed = {.name = "bitbyte-2bit",
                                          .quantized = true,
                                          .packed = true,
                                          .matches = is_packed,
                                          .read_config = read_config,
                                          .find = find_packed};
