// SPDX-License-Identifier: MIT
#include "training/checkpoint_state.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h"

static json_t *window_to_json(const bb_spike_window *w) {
    json_t *loss = json_array(), *grad_norm = json_array();
    bool ok = loss && grad_norm;
    for (int i = 0; i < w->count && ok; i++)
        ok = json_array_append_new(loss, json_real(w->loss[i])) == 0 &&
             json_array_append_new(grad_norm, json_real(w->grad_norm[i])) == 0;
    json_t *window = json_pack("{s:o, s:o}", "loss", loss, "grad_norm", grad_norm);
    if (ok) return window;
    json_decref(window);
    return NULL;
}

static const char *const sampling_names[] = {
    [BB_SAMPLING_EPOCHS] = "epochs", [BB_SAMPLING_WITH_REPLACEMENT] = "with_replacement"};

json_t *bb_training_state_to_json(const bb_training_state *s, const char *optimizer) {
    json_t *state = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:i, s:s, s:s}", "step", (json_int_t)s->step, "samples",
        (json_int_t)s->samples, "bytes_seen", (json_int_t)s->bytes_seen, "skipped_steps", (json_int_t)s->skipped_steps,
        "skipped_in_a_row", (json_int_t)s->skipped_in_a_row, "skipped_micro_batches", (json_int_t)s->skipped_micro_batches,
        "optimizer_steps", (json_int_t)s->optimizer_steps, "trained_length", s->trained_length, "scaler_scale", s->scaler_scale,
        "scaler_good_steps", s->scaler_good_steps, "sampling", sampling_names[s->sampling], "optimizer", optimizer);
    if (s->spikes.count == 0 || json_object_set_new(state, "spike_window", window_to_json(&s->spikes)) == 0) return state;
    json_decref(state);
    return NULL;
}

/* Reads a nonnegative integer; the error names the key. */
static bb_status read_int(const json_t *object, const char *key, const char *path, json_int_t *out, bb_error *err) {
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: training state: %s should be an integer >= 0, is %s", path, key,
                       json_is_integer(v) ? "negative" : bb_json_type_name(v));
    *out = json_integer_value(v);
    return BB_OK;
}

/* A file without a window yields an empty one. */
static bb_status read_window(const json_t *window, const char *path, bb_spike_window *out, bb_error *err) {
    const json_t *loss = json_object_get(window, "loss"), *grad_norm = json_object_get(window, "grad_norm");
    size_t count = json_array_size(loss);
    *out = (bb_spike_window){0};
    if (!window) return BB_OK;
    if (!json_is_array(loss) || count > BB_SPIKE_WINDOW || json_array_size(grad_norm) != count)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: training state: spike_window should be two arrays of the same length, at most %d numbers", path,
                       BB_SPIKE_WINDOW);
    for (size_t i = 0; i < count; i++) {
        const json_t *l = json_array_get(loss, i), *g = json_array_get(grad_norm, i);
        if (!json_is_number(l) || !json_is_number(g))
            return bb_fail(err, BB_ERR_FORMAT, "%s: training state: spike_window: expected numbers", path);
        bb_spike_add(out, json_number_value(l), json_number_value(g));
    }
    return BB_OK;
}

/* Files without this key were written before sampling by epochs existed. */
static bb_status read_sampling(const json_t *name, const char *path, bb_sampling *out, bb_error *err) {
    *out = BB_SAMPLING_WITH_REPLACEMENT;
    for (int i = BB_SAMPLING_EPOCHS; name && i <= BB_SAMPLING_WITH_REPLACEMENT; i++)
        if (json_is_string(name) && strcmp(json_string_value(name), sampling_names[i]) == 0) {
            *out = (bb_sampling)i;
            return BB_OK;
        }
    if (!name) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: training state: sampling should be \"%s\" or \"%s\", is %s", path,
                   sampling_names[BB_SAMPLING_EPOCHS], sampling_names[BB_SAMPLING_WITH_REPLACEMENT],
                   json_is_string(name) ? json_string_value(name) : bb_json_type_name(name));
}

bb_status bb_training_state_from_json(const char *text, const char *path, bb_training_state *out, char *optimizer,
                                      size_t optimizer_size, bb_error *err) {
    json_t *o;
    bb_status status = bb_json_parse(text, strlen(text), "training state", 0, &o, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", path);
    json_int_t v[8];
    static const char *const keys[8] = {
        "step",           "samples",          "bytes_seen", "skipped_steps", "skipped_micro_batches", "optimizer_steps",
        "trained_length", "scaler_good_steps"};
    for (int i = 0; i < 8 && status == BB_OK; i++) status = read_int(o, keys[i], path, &v[i], err);
    const json_t *scale = json_object_get(o, "scaler_scale");
    if (status == BB_OK && (!json_is_number(scale) || json_number_value(scale) < 0))
        status = bb_fail(err, BB_ERR_FORMAT, "%s: training state: scaler_scale should be a number >= 0, is %s", path,
                         json_is_number(scale) ? "negative" : bb_json_type_name(scale));
    json_int_t skipped_in_a_row = 0; /* missing in files of version 0.1.0 */
    if (status == BB_OK && json_object_get(o, "skipped_in_a_row"))
        status = read_int(o, "skipped_in_a_row", path, &skipped_in_a_row, err);
    bb_spike_window spikes;
    if (status == BB_OK) status = read_window(json_object_get(o, "spike_window"), path, &spikes, err);
    bb_sampling sampling = BB_SAMPLING_EPOCHS;
    if (status == BB_OK) status = read_sampling(json_object_get(o, "sampling"), path, &sampling, err);
    const char *name = json_string_value(json_object_get(o, "optimizer"));
    if (status == BB_OK && !name) status = bb_fail(err, BB_ERR_FORMAT, "%s: training state: 'optimizer' is missing", path);
    if (status == BB_OK) {
        *out = (bb_training_state){.step = v[0],
                                   .samples = (uint64_t)v[1],
                                   .bytes_seen = v[2],
                                   .skipped_steps = v[3],
                                   .skipped_micro_batches = v[4],
                                   .optimizer_steps = v[5],
                                   .trained_length = (int)v[6],
                                   .scaler_scale = json_number_value(scale),
                                   .scaler_good_steps = (int)v[7],
                                   .skipped_in_a_row = skipped_in_a_row,
                                   .spikes = spikes,
                                   .sampling = sampling};
        snprintf(optimizer, optimizer_size, "%s", name);
    }
    json_decref(o);
    return status;
}
