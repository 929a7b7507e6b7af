// SPDX-License-Identifier: MIT
/* The original's Trainer.save writes {step, model, opt, scaler, args, …}. Its `step` is the zero-based number of the last
 * completed step, and its optimizer numbers the parameters in the order of the model, which is that of our table. */
#include "training/original_checkpoint.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "modelfile/chat_template.h"
#include "training/checkpoint_tensors.h"

#define NO_OPT_STATE "use --no_opt_state to start with fresh moments"

typedef struct loader {
    const bb_model_source *w;
    bb_model *model;
    bb_optimizer *optimizer; /* NULL: only check the values */
    json_t *opt;
    bb_training_state state;
} loader;

static const char *path_of(const loader *l) { return bb_tensor_source_path(l->w->source); }

/* ---- step -------------------------------------------------------------------------------------------------------------- */

static bb_status read_step(loader *l, bb_error *err) {
    const char *text = bb_tensor_source_metadata(l->w->source, "step");
    json_t *json = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    json_int_t step = json_integer_value(json);
    bool good = json_is_integer(json) && step >= 0 && step < INT64_MAX / 2;
    json_decref(json);
    if (!text)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: a model without training state: use --init to start from its weights",
                       path_of(l));
    if (!good) return bb_fail(err, BB_ERR_FORMAT, "%s: 'step': expected a number of 0 or more, found %.40s", path_of(l), text);
    l->state.step = step + 1;
    l->state.trained_length = l->w->trained_length;
    l->state.sampling = BB_SAMPLING_EPOCHS;
    return BB_OK;
}

/* GradScaler's state, which is {} where it was not enabled. */
static void read_scaler(loader *l) {
    const char *text = bb_tensor_source_metadata(l->w->source, "scaler");
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    double scale = json_number_value(json_object_get(json, "scale"));
    json_int_t good_steps = json_integer_value(json_object_get(json, "_growth_tracker"));
    if (scale > 0 && isfinite(scale)) {
        l->state.scaler_scale = scale;
        l->state.scaler_good_steps = good_steps >= 0 && good_steps <= INT32_MAX ? (int)good_steps : 0;
    }
    json_decref(json);
}

/* ---- the optimizer's state ------------------------------------------------------------------------------------------------ */

static bb_status refuse(const loader *l, const char *what, bb_error *err) {
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %s: only the moments of torch.optim.AdamW are supported; " NO_OPT_STATE,
                   path_of(l), what);
}

/* Requires one group of all parameters in the model's order. */
static bb_status check_groups(const loader *l, bb_error *err) {
    const json_t *groups = json_object_get(l->opt, "param_groups"), *group, *params;
    size_t i, count = (size_t)l->model->table.count;
    json_array_foreach((json_t *)groups, i, group) {
        if (json_object_get(group, "update_proj_gap") || json_object_get(group, "proj_type"))
            return refuse(l, "its optimizer is GaLore", err);
        if (json_is_true(json_object_get(group, "amsgrad"))) return refuse(l, "its optimizer is AMSGrad", err);
    }
    group = json_array_get(groups, 0);
    params = json_object_get(group, "params");
    if (json_array_size(groups) != 1) return refuse(l, "its optimizer has more than one group of parameters", err);
    if (!json_object_get(group, "betas")) return refuse(l, "its optimizer is not Adam", err);
    for (i = 0; i < count && json_integer_value(json_array_get(params, i)) == (json_int_t)i; i++) {
    }
    if (i == count && json_array_size(params) == count) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED,
                   "%s: its optimizer has %zu parameters, but the model has %zu in a fixed order; " NO_OPT_STATE, path_of(l),
                   json_array_size(params), count);
}

static const bb_file_tensor *find_moment(const loader *l, int param, const char *name) {
    char text[64];
    (void)snprintf(text, sizeof text, "opt.state.%d.%s", param, name);
    return bb_tensor_source_find(l->w->source, text);
}

/* Reads the number of updates of a parameter: a number, or in newer versions of PyTorch a tensor. */
static bb_status read_updates(const loader *l, int param, const json_t *entry, int64_t *updates, bb_error *err) {
    const json_t *json = json_object_get(entry, "step");
    const bb_file_tensor *t = find_moment(l, param, "step");
    float value = 0;
    double steps = json_number_value(json);
    if (t && t->dtype == BB_FILE_F32 && t->bytes == sizeof value) {
        BB_TRY(bb_tensor_source_read(l->w->source, t, &value, err));
        steps = (double)value;
    }
    if (!(steps >= 1 && steps < 1e15))
        return bb_fail(err, BB_ERR_FORMAT, "%s: 'opt.state.%d.step': expected a number of at least 1, found %g", path_of(l),
                       param, steps);
    if ((int64_t)steps > *updates) *updates = (int64_t)steps;
    return BB_OK;
}

static bb_status check_moment(const loader *l, int param, const char *name, bb_error *err) {
    const bb_param *p = &l->model->table.entries[param];
    const bb_file_tensor *t = find_moment(l, param, name);
    if (!t)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor 'opt.state.%d.%s' is missing; " NO_OPT_STATE, path_of(l), param, name);
    bool number = t->dtype == BB_FILE_F32 || t->dtype == BB_FILE_F16 || t->dtype == BB_FILE_BF16 || t->dtype == BB_FILE_F64;
    if (number && t->rank == p->rank && memcmp(t->shape, p->shape, (size_t)p->rank * sizeof *p->shape) == 0) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': expected floats of shape %s, as %s, found %s %s; " NO_OPT_STATE,
                   path_of(l), t->name, bb_shape_format(p->rank, p->shape).text, p->name, bb_file_dtype_name(t->dtype),
                   bb_shape_format(t->rank, t->shape).text);
}

static bb_status check_optimizer(loader *l, bb_error *err) {
    const char *text = bb_tensor_source_metadata(l->w->source, "opt");
    if (l->optimizer->options.kind != BB_OPTIM_ADAMW)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%s: its optimizer state is 'adamw', this run's is '%s'; use --optim adamw, or " NO_OPT_STATE,
                       path_of(l), bb_optimizer_name(l->optimizer));
    if (!text) return bb_fail(err, BB_ERR_FORMAT, "%s: the file has no 'opt'; " NO_OPT_STATE, path_of(l));
    BB_TRY(bb_json_parse(text, strlen(text), path_of(l), 0, &l->opt, err));
    const json_t *entries = json_object_get(l->opt, "state"), *entry;
    const char *key;
    json_object_foreach((json_t *)entries, key, entry) {
        /* its versions since 2026 put its states into a dict of their own */
        if (json_object_get(entry, "state1") || json_object_get(entry, "__bnb_optimizer_quant_state__"))
            return refuse(l, "its optimizer is bitsandbytes'", err);
        if (json_object_get(entry, "projector")) return refuse(l, "its optimizer is GaLore", err);
    }
    BB_TRY(check_groups(l, err));
    for (int i = 0; i < l->model->table.count; i++) {
        char number[16];
        (void)snprintf(number, sizeof number, "%d", i);
        if (!(entry = json_object_get(entries, number))) continue; /* a parameter that was never updated has moments of 0 */
        BB_TRY(read_updates(l, i, entry, &l->state.optimizer_steps, err));
        BB_TRY(check_moment(l, i, "exp_avg", err));
        BB_TRY(check_moment(l, i, "exp_avg_sq", err));
    }
    return BB_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------------ */

typedef struct transfer {
    const loader *l;
    bb_checkpoint_memory memory;
    bb_checkpoint_tensor tensor;
    bool copy; /* false: only check the values */
} transfer;

static bb_status take_values(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    const transfer *t = user;
    for (int64_t i = 0; t->tensor.field == BB_FIELD_V && i < n; i++)
        if (values[i] < 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: 'opt.state.%d.exp_avg_sq': element %" PRId64 " is %g, expected at least 0",
                           path_of(t->l), t->tensor.param, first + i, (double)values[i]);
    if (!t->copy) return BB_OK;
    const bb_checkpoint_bytes bytes = {(uint64_t)first * sizeof *values, (const uint8_t *)values, (size_t)n * sizeof *values};
    return bb_checkpoint_copy_in(t->l->model->device, &t->memory, &t->tensor, &bytes, err);
}

static bb_status pass(const loader *l, bool copy, bb_error *err) {
    transfer t = {.l = l, .memory = bb_checkpoint_memory_of(l->model, l->optimizer), .copy = copy};
    static const struct {
        bb_checkpoint_field field;
        const char *name;
    } moments[] = {{BB_FIELD_M, "exp_avg"}, {BB_FIELD_V, "exp_avg_sq"}};
    for (int i = 0; i < l->model->table.count; i++) {
        const bb_param *p = &l->model->table.entries[i];
        bb_weight weight;
        BB_TRY(l->w->layout->find(l->w, p, &weight, err));
        t.tensor = (bb_checkpoint_tensor){.param = i, .field = BB_FIELD_VALUES};
        t.tensor.tensor.bytes = (uint64_t)p->count * sizeof(float);
        BB_TRY(bb_model_source_scan(l->w, p, &weight, take_values, &t, err));
        for (size_t k = 0; l->optimizer && k < sizeof moments / sizeof *moments; k++) {
            weight = (bb_weight){.parts = {find_moment(l, i, moments[k].name)}, .part_count = 1};
            t.tensor.field = moments[k].field;
            if (weight.parts[0]) BB_TRY(bb_model_source_scan(l->w, p, &weight, take_values, &t, err));
        }
    }
    return BB_OK;
}

bb_status bb_original_checkpoint_load(const bb_model_source *w, bb_model *model, bb_optimizer *optimizer,
                                      bb_training_state *state, bb_error *err) {
    loader l = {.w = w, .model = model, .optimizer = optimizer};
    bb_status status;
    BB_TRY(read_step(&l, err));
    read_scaler(&l);
    if (optimizer) BB_TRY_GOTO(status, done, check_optimizer(&l, err));
    BB_TRY_GOTO(status, done, pass(&l, false, err));
    BB_TRY_GOTO(status, done, pass(&l, true, err));
    BB_TRY_GOTO(status, done, bb_model_copy_chat_template(model, w->chat_template, err));
    model->trained_length = w->trained_length;
    bb_model_parameters_changed(model);
    *state = l.state;
done:
    json_decref(l.opt);
    return status;
}
