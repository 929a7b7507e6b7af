// SPDX-License-Identifier: MIT
/* Reads all of a model file or checkpoint and reports, for each tensor, what is wrong with it. */
#include <jansson.h>
#include <stdlib.h>

#include "core/finite.h"
#include "core/json.h"
#include "core/math.h"
#include "modelfile/dequantize.h"
#include "modelfile/layouts.h"
#include "modelfile/packed_codes.h"
#include "modelfile/verify.h"

typedef struct check {
    bb_tensor_source *source;
    bool packed; /* U8 and I8 tensors are codes, BF16 tensors are scales */
    json_t *failures;
    const bb_verify_request *request;
    int64_t done, total;
} check;

/* Records an error in the file's content, so that the check continues; other errors, such as a lack of memory, end it. */
static bb_status note(const check *c, bb_status status, const char *tensor, bb_error *err) {
    if (!bb_status_is_damage(status)) return status;
    json_t *failure = json_pack("{s:s?, s:o}", "tensor", tensor, "reason", bb_json_path(err->message));
    return json_array_append_new(c->failures, failure) == 0 ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory");
}

/* Checks that values of types other than f32 are finite. */
static bb_status check_values(const check *c, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                              bb_error *err) {
    float values[1024];
    int64_t n = bb_file_elements(t->dtype, size), first = bb_file_elements(t->dtype, at);
    for (int64_t i = 0; i < n; i += 1024) { /* a multiple of every block size */
        int64_t count = bb_min(1024, n - i);
        const uint8_t *bytes = piece + i / bb_file_dtype_elements(t->dtype) * (int64_t)bb_file_dtype_bytes(t->dtype);
        bb_dequantize(t->dtype, bytes, count, values);
        int64_t bad = bb_find_not_finite(values, count);
        if (bad < count)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': element %lld is %s, expected a finite number",
                           bb_tensor_source_path(c->source), t->name, (long long)(first + i + bad),
                           bb_not_finite_name(values[bad]));
    }
    return BB_OK;
}

static bb_status visit(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size, bb_error *err) {
    check *c = user;
    c->done += (int64_t)size;
    if (c->request->on_progress) c->request->on_progress(c->request->user, c->done, c->total);
    if (c->packed && t->dtype == BB_FILE_U8) return bb_packed_check_codes(c->source, t, at, piece, size, err);
    if (c->packed && t->dtype == BB_FILE_I8) return bb_packed_check_row_codes(c->source, t, at, piece, size, err);
    if (c->packed && t->dtype == BB_FILE_BF16) return bb_packed_check_row_scales(c->source, t, at, piece, size, err);
    return t->dtype == BB_FILE_F32 ? bb_tensor_check_finite(c->source, t, at, piece, size, err)
                                   : check_values(c, t, at, piece, size, err);
}

static bb_status check_metadata(check *c, bb_tensor_source *st, bb_error *err) {
    bb_model_source w;
    bb_param_table table = {0};
    BB_TRY(note(c, bb_tensor_source_check_metadata(st, err), "__metadata__", err));
    BB_TRY(note(c, c->request->check_state(st, err), "__metadata__", err));
    bb_status status = bb_model_source_from(st, c->request->options, &w, err);
    c->packed = w.layout == &bb_layout_packed;
    if (status != BB_OK) return note(c, status, "__metadata__", err);
    BB_TRY(bb_param_table_create(&w.config, false, &table, err));
    for (int i = 0; i < table.count && status == BB_OK; i++) {
        const bb_param *p = &table.entries[i];
        bb_weight weight;
        status = note(c, w.layout->find(&w, p, &weight, err), p->name, err);
    }
    bb_param_table_free(&table);
    return status;
}

bb_status bb_model_file_verify(const char *path, const bb_verify_request *request, bool *good, char **json, bb_error *err) {
    check c = {.failures = json_array(), .request = request};
    bb_tensor_source *st = NULL;
    bb_error ignored, *why = err ? err : &ignored;
    *json = NULL;
    *good = false;
    bb_status status = bb_tensor_source_open(path, &st, why);
    if (status == BB_ERR_FORMAT) {
        status = note(&c, status, NULL, why);
    } else if (status == BB_OK) {
        int count = bb_tensor_source_count(st);
        for (int i = 0; i < count; i++) c.total += (int64_t)bb_tensor_source_at(st, i)->bytes;
        c.source = st;
        status = check_metadata(&c, st, why);
        for (int i = 0; i < count && status == BB_OK; i++) {
            const bb_file_tensor *t = bb_tensor_source_at(st, i);
            status = note(&c, bb_tensor_source_scan(st, t, visit, &c, why), t->name, why);
        }
    }
    if (status != BB_OK) goto done;
    *good = json_array_size(c.failures) == 0;
    json_t *root = json_pack("{s:o, s:b, s:b, s:i, s:I, s:O}", "file", bb_json_path(path), "good", (int)*good, "checksums",
                             st && bb_tensor_source_has_checksums(st), "tensors", st ? bb_tensor_source_count(st) : 0, "bytes",
                             (json_int_t)c.total, "failures", c.failures);
    *json = root ? bb_json_text(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory while checking %s", path);
done:
    json_decref(c.failures);
    bb_tensor_source_close(st);
    return status;
}
