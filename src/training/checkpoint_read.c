// SPDX-License-Identifier: MIT
#include "training/checkpoint_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/options.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "modelfile/verify.h"
#include "training/checkpoint_tensors.h"
#include "training/old_moments.h"
#include "training/original_checkpoint.h"

/* A file without training state yields a zero state and the optimizer "none". */
static bb_status read_state(const bb_tensor_source *source, bb_training_state *out, char *optimizer, size_t optimizer_size,
                            bb_error *err) {
    const char *text = bb_tensor_source_metadata(source, BB_CHECKPOINT_STATE);
    *out = (bb_training_state){0};
    snprintf(optimizer, optimizer_size, "none");
    return text ? bb_training_state_from_json(text, bb_tensor_source_path(source), out, optimizer, optimizer_size, err) : BB_OK;
}

/* Checks that the file has every tensor of the list with its type and shape. */
static bb_status check_tensors(const bb_tensor_source *source, const bb_checkpoint_tensor *list, int count, bb_error *err) {
    for (int i = 0; i < count; i++) {
        const bb_file_tensor *want = &list[i].tensor, *found = NULL;
        if (want->dtype == BB_FILE_F32) {
            BB_TRY(bb_tensor_source_require(source, list[i].name, BB_FILE_F32, want->rank, want->shape, &found, err));
            continue;
        }
        found = bb_tensor_source_find(source, list[i].name);
        if (!found)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", bb_tensor_source_path(source), list[i].name);
        if (found->dtype != want->dtype || found->bytes != want->bytes)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected %llu bytes of %s, found %llu of %s",
                           bb_tensor_source_path(source), list[i].name, (unsigned long long)want->bytes,
                           bb_file_dtype_name(want->dtype), (unsigned long long)found->bytes, bb_file_dtype_name(found->dtype));
    }
    return BB_OK;
}

/* Verifies the checksums of the metadata and of every tensor in the list, and checks that every f32 value is finite. */
static bb_status check_contents(const bb_tensor_source *source, const bb_checkpoint_tensor *list, int count, bb_error *err) {
    BB_TRY(bb_tensor_source_check_metadata(source, err));
    for (int i = 0; i < count; i++)
        BB_TRY(bb_tensor_source_scan(source, bb_tensor_source_find(source, list[i].name), bb_tensor_check_finite,
                                     (void *)source, err));
    return BB_OK;
}

typedef struct destination {
    bb_device *device;
    const bb_checkpoint_memory *to;
    const bb_checkpoint_tensor *tensor;
} destination;

static bb_status copy_piece(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                            bb_error *err) {
    const destination *d = user;
    const bb_checkpoint_bytes bytes = {at, piece, size};
    (void)t;
    return bb_checkpoint_copy_in(d->device, d->to, d->tensor, &bytes, err);
}

/* Widens the 8-bit moments of an old file to f32. */
static bb_status copy_old_moments(const bb_tensor_source *source, const bb_optimizer *optimizer, int param, int64_t steps,
                                  bb_error *err) {
    const bb_model *model = optimizer->model;
    const bb_param *p = &model->table.entries[param];
    bb_checkpoint_memory to = bb_checkpoint_memory_of(model, optimizer);
    float *m, *v;
    BB_TRY(bb_old_moments_read(source, optimizer, p, steps, &m, &v, err));
    bb_checkpoint_tensor first = {.param = param, .field = BB_FIELD_M}, second = {.param = param, .field = BB_FIELD_V};
    destination to_m = {.device = model->device, .to = &to, .tensor = &first}, to_v = to_m;
    to_v.tensor = &second;
    size_t bytes = (size_t)p->count * sizeof *m;
    bb_status status = copy_piece(&to_m, NULL, 0, (const uint8_t *)m, bytes, err);
    if (status == BB_OK) status = copy_piece(&to_v, NULL, 0, (const uint8_t *)v, bytes, err);
    free(m);
    return status;
}

static bb_status copy_tensors(const bb_tensor_source *source, bb_model *model, bb_optimizer *optimizer,
                              const bb_checkpoint_tensor *list, int count, bb_training_state *state, bb_error *err) {
    bb_checkpoint_memory to = bb_checkpoint_memory_of(model, optimizer);
    for (int i = 0; i < count; i++) {
        destination d = {.device = model->device, .to = &to, .tensor = &list[i]};
        if (optimizer && list[i].field != BB_FIELD_VALUES &&
            bb_old_moments_found(source, optimizer, &model->table.entries[list[i].param])) {
            if (list[i].field != BB_FIELD_M8)
                continue; /* handled once per parameter: copy_old_moments reads all four tensors */
            BB_TRY(copy_old_moments(source, optimizer, list[i].param, state->optimizer_steps, err));
            state->moments_widened = true;
            continue;
        }
        BB_TRY(bb_tensor_source_scan(source, bb_tensor_source_find(source, list[i].name), copy_piece, &d, err));
    }
    return BB_OK;
}

static bb_status load_tensors(const bb_model_source *w, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                              bb_error *err) {
    const bb_tensor_source *source = w->source;
    bb_checkpoint_tensor *list = NULL;
    int count = 0;
    BB_TRY(bb_model_source_refuse_packed(w, err));
    BB_TRY(bb_checkpoint_tensors_list(model, optimizer, source, &list, &count, err));
    bb_status status = check_tensors(source, list, count, err);
    if (status == BB_OK) status = check_contents(source, list, count, err);
    if (status == BB_OK) status = copy_tensors(source, model, optimizer, list, count, state, err);
    free(list);
    if (status == BB_OK) status = bb_model_copy_chat_template(model, w->chat_template, err);
    if (status == BB_OK) {
        model->trained_length = w->trained_length;
        bb_model_parameters_changed(model);
    }
    return status;
}

static bb_status same_config(const char *path, const bb_config *file, const bb_config *model, bb_error *err) {
    const struct {
        const char *name;
        double file, model;
    } values[] = {{"n_layer", file->n_layer, model->n_layer},
                  {"d_model", file->d_model, model->d_model},
                  {"n_head", file->n_head, model->n_head},
                  {"n_kv_head", file->n_kv_head, model->n_kv_head},
                  {"d_ff", file->d_ff, model->d_ff},
                  {"rope_base", file->rope_base, model->rope_base},
                  {"norm_eps", file->norm_eps, model->norm_eps},
                  {"act_quant", file->act_quant, model->act_quant},
                  {"dense", file->dense, model->dense},
                  {"ngram_max", file->ngram_max, model->ngram_max},
                  {"ngram_bits", file->ngram_bits, model->ngram_bits},
                  {"ste (0 identity, 1 clipped)", file->ste, model->ste}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (values[i].file < values[i].model || values[i].file > values[i].model)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: the file's model has %s %g, this one has %g", path, values[i].name,
                           values[i].file, values[i].model);
    return BB_OK;
}

/* The original's checkpoints may not state the number of heads; then it comes from the caller's model. */
static bb_status open_source(const char *path, const bb_model *model, bb_model_source *out, bb_error *err) {
    bb_tensor_source *source;
    *out = (bb_model_source){0};
    BB_TRY(bb_tensor_source_open(path, &source, err));
    bb_import_options options;
    bb_import_options_default(&options);
    if (strcmp(source->ops->format, "torch") == 0) options.n_head = model->config.n_head;
    bb_status status = bb_model_source_from(source, &options, out, err);
    if (status != BB_OK) bb_tensor_source_close(source);
    return status;
}

/* Other programs' formats hold only a model. One of our model files is accepted if no optimizer state is wanted. */
static bb_status require_training_state(const bb_model_source *w, const bb_optimizer *optimizer, bb_error *err) {
    bool ours = w->layout == &bb_layout_bitbyte || w->layout == &bb_layout_packed;
    if ((ours && !optimizer) || bb_tensor_source_metadata(w->source, BB_CHECKPOINT_STATE)) return BB_OK;
    if (w->layout == &bb_layout_packed) return bb_model_source_refuse_packed(w, err);
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: a model without training state: use --init to start from its weights%s",
                   bb_tensor_source_path(w->source), ours ? ", or resume with --no_opt_state" : "");
}

bb_status bb_checkpoint_load(const char *path, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                             bb_error *err) {
    BB_DEVICE_SCOPE(model->device);
    bb_model_source w;
    bb_training_state read;
    char kind[16];
    bb_status status;
    BB_TRY(open_source(path, model, &w, err));
    BB_TRY_GOTO(status, done, same_config(path, &w.config, &model->config, err));
    if (w.layout == &bb_layout_original) {
        BB_TRY_GOTO(status, done, bb_original_checkpoint_load(&w, model, optimizer, &read, err));
        goto loaded;
    }
    BB_TRY_GOTO(status, done, require_training_state(&w, optimizer, err));
    BB_TRY_GOTO(status, done, read_state(w.source, &read, kind, sizeof kind, err));
    if (optimizer) {
        const char *want = bb_optimizer_name(optimizer);
        if (strcmp(kind, want) != 0) {
            status =
                bb_fail(err, BB_ERR_ARGUMENT,
                        "%s: its optimizer state is '%s', this run's is '%s'; use --no_opt_state to start with fresh moments%s",
                        path, kind, want, strcmp(kind, "none") ? ", or use the same optimizer" : "");
            goto done;
        }
    }
    BB_TRY_GOTO(status, done, load_tensors(&w, model, optimizer, &read, err));
loaded:
    if (optimizer) optimizer->steps = read.optimizer_steps;
    if (state) *state = read;
done:
    bb_model_source_close(&w);
    return status;
}

/* For bb_verify_file: checks that the training state can be read. */
static bb_status check_state(const bb_tensor_source *source, bb_error *err) {
    bb_training_state state;
    char optimizer[16];
    return read_state(source, &state, optimizer, sizeof optimizer, err);
}

bb_status bb_verify_file(const char *path, const bb_import_options *given,
                         void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total), void *user, bool *good,
                         char **json, bb_error *err) {
    BB_REQUIRE("path, good, json", path, good, json);
    BB_OPTIONS_READ(bb_import_options, options, given);
    bb_verify_request request = {.options = options, .check_state = check_state, .on_progress = on_progress, .user = user};
    return bb_model_file_verify(path, &request, good, json, err);
}

bb_status bb_checkpoint_text(const char *path, const char *key, char **out, bb_error *err) {
    bb_tensor_source *source;
    *out = NULL;
    BB_TRY(bb_tensor_source_open(path, &source, err));
    const char *text = bb_tensor_source_metadata(source, key);
    bb_status status = BB_OK;
    if (text && !(*out = strdup(text))) status = bb_fail(err, BB_ERR_MEMORY, "out of memory for the metadata of %s", path);
    bb_tensor_source_close(source);
    return status;
}

bb_status bb_checkpoint_config(const char *path, char **text, bb_error *err) {
    BB_REQUIRE("path, text", path, text);
    return bb_checkpoint_text(path, BB_CHECKPOINT_RUN_CONFIG, text, err);
}
