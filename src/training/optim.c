/* SPDX-License-Identifier: MIT */
#include "training/optim.h"

#include <math.h>
#include <stdlib.h>

void bb_optimizer_options_default(bb_optimizer_options *o) {
    *o = (bb_optimizer_options){
        .kind = BB_OPTIM_ADAMW8BIT, .lr = 2e-4, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
}

int64_t bb_optimizer_blocks(int64_t count) { return (count + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK; }

static void carve_slots(const bb_param_table *table, bb_optimizer_kind kind, bb_optimizer_slot *slots, bb_arena *arena) {
    for (int i = 0; i < table->count; i++) {
        size_t n = (size_t)table->entries[i].count;
        size_t blocks = (size_t)bb_optimizer_blocks(table->entries[i].count);
        bb_optimizer_slot s = {.is_8bit = kind == BB_OPTIM_ADAMW8BIT && n >= BB_OPTIM_SMALL_TENSOR};
        if (s.is_8bit) {
            s.q.m = bb_arena_take(arena, n);
            s.q.v = bb_arena_take(arena, n);
            s.q.m_absmax = bb_arena_take(arena, blocks * sizeof(float));
            s.q.v_absmax = bb_arena_take(arena, blocks * sizeof(float));
        } else {
            s.m = bb_arena_take(arena, n * sizeof(float));
            s.v = bb_arena_take(arena, n * sizeof(float));
        }
        if (slots) slots[i] = s;
    }
}

bb_status bb_optimizer_predict(const bb_config *config, bb_optimizer_kind kind, uint64_t *bytes, bb_error *err) {
    bb_param_table table;
    BB_TRY(bb_param_table_create(config, false, &table, err));
    bb_arena measure = {0};
    carve_slots(&table, kind, NULL, &measure);
    *bytes = measure.used;
    bb_param_table_free(&table);
    return BB_OK;
}

static bb_status check_options(const bb_optimizer_options *o, bb_error *err) {
    if (o->kind != BB_OPTIM_ADAMW && o->kind != BB_OPTIM_ADAMW8BIT)
        return bb_fail(err, BB_ERR_ARGUMENT, "optimizer kind %d is not known", (int)o->kind);
    if (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "betas (%g, %g) must be in [0, 1)", o->beta1, o->beta2);
    if (!(o->eps > 0) || !isfinite(o->eps)) return bb_fail(err, BB_ERR_ARGUMENT, "eps %g must be positive", o->eps);
    if (!(o->weight_decay >= 0) || !isfinite(o->weight_decay))
        return bb_fail(err, BB_ERR_ARGUMENT, "weight decay %g must not be negative", o->weight_decay);
    return BB_OK;
}

bb_status bb_optimizer_create(bb_model *model, const bb_optimizer_options *options, bb_optimizer **out, bb_error *err) {
    *out = NULL;
    BB_TRY(check_options(options, err));
    if (model->for_inference) return bb_fail(err, BB_ERR_ARGUMENT, "a model that was loaded for inference can't be trained");
    bb_device *dev = model->device;
    bb_optimizer *o = calloc(1, sizeof *o);
    if (!o) return bb_fail(err, BB_ERR_MEMORY, "out of memory for an optimizer");
    o->model = model;
    o->options = *options;
    o->norm_limit = INFINITY;
    o->slots = calloc((size_t)model->table.count, sizeof *o->slots);
    bb_arena measure = {0};
    carve_slots(&model->table, options->kind, NULL, &measure);
    o->bytes = measure.used;
    o->memory = dev->ops->alloc(dev, o->bytes);
    if (!o->slots || !o->memory) {
        bb_status status = bb_fail(err, BB_ERR_MEMORY, "no memory for the optimizer's state: %.1f MB", (double)o->bytes * 1e-6);
        bb_optimizer_free(o);
        return status;
    }
    bb_arena arena = {.base = o->memory};
    carve_slots(&model->table, options->kind, o->slots, &arena);
    for (int i = 0; i < model->table.count; i++)
        if (o->slots[i].is_8bit) dev->ops->adamw8bit_init(dev, o->slots[i].q, model->table.entries[i].count);
    *out = o;
    return dev->ops->sync(dev, err);
}

void bb_optimizer_free(bb_optimizer *o) {
    if (!o) return;
    if (o->memory) o->model->device->ops->free(o->model->device, o->memory, o->bytes);
    free(o->slots);
    free(o);
}

bool bb_optimizer_is_8bit(const bb_optimizer *o) { return o->options.kind == BB_OPTIM_ADAMW8BIT; }
uint64_t bb_optimizer_state_bytes(const bb_optimizer *o) { return o->bytes; }

bb_status bb_optimizer_step(bb_optimizer *o, double lr, double max_norm, double loss_scale, double *grad_norm, bool *applied,
                            bb_error *err) {
    bb_model *model = o->model;
    bb_device *dev = model->device;
    *applied = false;
    if (!model->grads) return bb_fail(err, BB_ERR_ARGUMENT, "an optimizer step before any backward pass");
    *grad_norm = sqrt(dev->ops->sum_squares(dev, model->grads, model->table.total)) / loss_scale;
    BB_TRY(dev->ops->sync(dev, err));
    if (!isfinite(*grad_norm) || *grad_norm > o->norm_limit) return BB_OK;

    const bb_optimizer_options *opt = &o->options;
    double t = (double)(o->steps + 1), scale = max_norm > 0 ? max_norm / (*grad_norm + 1e-6) : 1;
    bb_adamw h = {.lr = lr,
                  .beta1 = opt->beta1,
                  .beta2 = opt->beta2,
                  .eps = opt->eps,
                  .grad_scale = ((scale < 1 ? scale : 1) / loss_scale),
                  .bias_correction1 = (1 - pow(opt->beta1, t)),
                  .bias_correction2 = (1 - pow(opt->beta2, t))};
    for (int i = 0; i < model->table.count; i++) {
        const bb_param *p = &model->table.entries[i];
        const bb_optimizer_slot *s = &o->slots[i];
        float *values = model->params + p->offset, *grads = model->grads + p->offset;
        h.weight_decay = p->decays || opt->decay_all ? opt->weight_decay : 0;
        if (s->is_8bit)
            dev->ops->adamw8bit_step(dev, values, grads, s->q, p->count, &h);
        else
            dev->ops->adamw_step(dev, values, grads, s->m, s->v, p->count, &h);
    }
    o->steps++;
    bb_model_parameters_changed(model);
    *applied = true;
    return dev->ops->sync(dev, err);
}
