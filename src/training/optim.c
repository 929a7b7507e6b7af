// SPDX-License-Identifier: MIT
#include "training/optim.h"

#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/options.h"

_Static_assert(BB_SHARD_UNIT % BB_NORM_TILE == 0 && BB_SHARD_UNIT % BB_ADAM8_BLOCK == 0,
               "pieces divide neither tiles nor blocks");

static const char *const names[] = {[BB_OPTIM_ADAMW] = "adamw", [BB_OPTIM_ADAMW8BIT] = "adamw8bit", [BB_OPTIM_MUON] = "muon"};

BB_OPTIONS_DEFAULTS(bb_optimizer_options, .kind = BB_OPTIM_ADAMW8BIT, .lr = 2e-4, .weight_decay = 0.1, .beta1 = 0.9,
                    .beta2 = 0.95, .eps = 1e-8, .lr_adam = 3e-3, .lr_ngram = 0.4, .muon_iterations = 3);

int64_t bb_optimizer_blocks(int64_t count) { return (count + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK; }

bb_moments bb_optimizer_moments(bb_optimizer_kind kind, const bb_param *param) {
    if (param->ngram) return BB_MOMENTS_ROWS;
    if (kind == BB_OPTIM_MUON && param->linear) return BB_MOMENTUM_BF16;
    bool packs = kind == BB_OPTIM_ADAMW8BIT && param->linear && param->count >= BB_OPTIM_SMALL_TENSOR;
    return packs ? BB_MOMENTS_8BIT : BB_MOMENTS_F32;
}

void bb_optimizer_layout(const bb_param_table *table, const bb_shards *shards, int rank, bb_optimizer_kind kind,
                         bb_optimizer_slot *slots, bb_arena *arena) {
    for (int i = 0; i < shards->piece_count; i++) {
        const bb_piece *p = &shards->pieces[i];
        if (p->rank != rank) continue;
        size_t n = (size_t)p->count, blocks = (size_t)bb_optimizer_blocks(p->count);
        bb_optimizer_slot s = {.form = bb_optimizer_moments(kind, &table->entries[p->param])};
        if (s.form == BB_MOMENTS_ROWS) {
            s.row_sums = bb_arena_alloc(arena, n / (size_t)table->entries[p->param].shape[1] * sizeof *s.row_sums);
        } else if (s.form == BB_MOMENTUM_BF16) {
            s.momentum = bb_arena_alloc(arena, n * sizeof *s.momentum);
        } else if (s.form == BB_MOMENTS_8BIT) {
            s.q.m = bb_arena_alloc(arena, n);
            s.q.v = bb_arena_alloc(arena, n);
            s.q.m_absmax = bb_arena_alloc(arena, blocks * sizeof(float));
            s.q.v_absmax = bb_arena_alloc(arena, blocks * sizeof(float));
        } else {
            s.m = bb_arena_alloc(arena, n * sizeof(float));
            s.v = bb_arena_alloc(arena, n * sizeof(float));
        }
        if (slots) slots[i] = s;
    }
}

bb_status bb_optimizer_predict(const bb_config *config, bb_optimizer_kind kind, int rank, int size, uint64_t *bytes,
                               bb_error *err) {
    bb_param_table table;
    bb_shards shards;
    BB_TRY(bb_param_table_create(config, false, &table, err));
    bb_status status = bb_shards_create(&table, size, kind == BB_OPTIM_MUON, &shards, err);
    if (status == BB_OK) {
        bb_arena measure = {0};
        bb_optimizer_layout(&table, &shards, rank, kind, NULL, &measure);
        *bytes = measure.used;
        bb_shards_free(&shards);
    }
    bb_param_table_free(&table);
    return status;
}

static double momentum_for(const bb_optimizer_options *o, const bb_config *config) {
    if (o->momentum > 0) return o->momentum;
    return config->ngram_max ? 0.95 : 0.9; /* docs/LEARNING.md */
}

bb_status bb_optimizer_check_kind(bb_optimizer_kind kind, bb_error *err) {
    if (kind >= 0 && (size_t)kind < sizeof names / sizeof *names) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "unknown optimizer kind %d", (int)kind);
}

static bb_status check_options(const bb_optimizer_options *o, bb_error *err) {
    BB_TRY(bb_optimizer_check_kind(o->kind, err));
    if (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "betas (%g, %g) must be in [0, 1)", o->beta1, o->beta2);
    if (!(o->eps > 0) || !isfinite(o->eps)) return bb_fail(err, BB_ERR_ARGUMENT, "eps %g must be positive", o->eps);
    if (!(o->lr >= 0) || !isfinite(o->lr)) return bb_fail(err, BB_ERR_ARGUMENT, "lr %g must be finite and not negative", o->lr);
    if (!(o->weight_decay >= 0) || !isfinite(o->weight_decay))
        return bb_fail(err, BB_ERR_ARGUMENT, "weight decay %g must not be negative", o->weight_decay);
    if (!(o->lr_ngram >= 0) || !isfinite(o->lr_ngram))
        return bb_fail(err, BB_ERR_ARGUMENT, "lr_ngram %g must be finite and not negative", o->lr_ngram);
    if (o->kind != BB_OPTIM_MUON) return BB_OK;
    if (!(o->lr_adam >= 0) || !isfinite(o->lr_adam))
        return bb_fail(err, BB_ERR_ARGUMENT, "lr_adam %g must be finite and not negative", o->lr_adam);
    if (!(o->momentum >= 0 && o->momentum < 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "momentum %g must be in [0, 1)", o->momentum);
    if (o->muon_iterations < 1 || o->muon_iterations > BB_MUON_MAX_ITERATIONS)
        return bb_fail(err, BB_ERR_ARGUMENT, "muon_iterations %d must be from 1 to %d", o->muon_iterations,
                       BB_MUON_MAX_ITERATIONS);
    return BB_OK;
}

static int64_t offset_of(const bb_optimizer *o, const bb_piece *p) {
    return o->model->table.entries[p->param].offset + p->first;
}

static bool is_own(const bb_optimizer *o, const bb_piece *p) { return !o->dist || p->rank == o->dist->rank; }

/* Lists the matrices of this rank that Muon updates, and returns their number. A piece is one or more whole matrices. */
static int64_t list_matrices(const bb_optimizer *o, bb_muon_matrix *out) {
    int64_t count = 0;
    for (int i = 0; i < o->shards.piece_count; i++) {
        const bb_piece *p = &o->shards.pieces[i];
        const bb_param *param = &o->model->table.entries[p->param];
        if (!is_own(o, p) || o->slots[i].form != BB_MOMENTUM_BF16) continue;
        int64_t columns = param->shape[1], rows = param->shape[0] / param->matrices;
        for (int64_t at = 0; at < p->count; at += rows * columns, count++) {
            if (!out) continue;
            float *weights = o->model->params + offset_of(o, p) + at, *grads = o->model->grads + offset_of(o, p) + at;
            out[count] = (bb_muon_matrix){weights, grads, o->slots[i].momentum + at, rows, columns};
        }
    }
    return count;
}

static bb_status make_matrices(bb_optimizer *o, bb_error *err) {
    int64_t count = list_matrices(o, NULL);
    o->matrices = calloc((size_t)count + 1, sizeof *o->matrices);
    return o->matrices ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for an optimizer");
}

bb_status bb_optimizer_create(bb_model *model, const bb_optimizer_options *given, bb_optimizer **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_optimizer_options, options, given);
    BB_DEVICE_SCOPE(model->device);
    BB_TRY(check_options(options, err));
    if (model->for_inference) return bb_fail(err, BB_ERR_ARGUMENT, "a model loaded for inference cannot be trained");
    bb_device *dev = model->device;
    bb_optimizer *o = calloc(1, sizeof *o);
    if (!o) return bb_fail(err, BB_ERR_MEMORY, "out of memory for an optimizer");
    o->model = model;
    o->options = *options;
    o->options.momentum = momentum_for(options, &model->config);
    o->dist = options->share_over && options->share_over->size > 1 ? options->share_over : NULL;
    o->norm_limit = INFINITY;
    o->exchange.model = model;
    bb_status status;
    int rank = o->dist ? o->dist->rank : 0, size = o->dist ? o->dist->size : 1;
    BB_TRY_GOTO(status, fail, bb_shards_create(&model->table, size, options->kind == BB_OPTIM_MUON, &o->shards, err));
    o->slots = calloc((size_t)o->shards.piece_count, sizeof *o->slots);
    bb_arena measure = {0};
    bb_optimizer_layout(&model->table, &o->shards, rank, options->kind, NULL, &measure);
    o->bytes = measure.used;
    if (o->bytes > 0) o->memory = dev->ops->alloc(dev, o->bytes); /* of many ranks some may have nothing */
    BB_TRY_GOTO(status, fail, bb_tile_sums_open(dev, &model->table, &o->shards, o->dist, &o->tiles, err));
    if (!o->slots || (o->bytes > 0 && !o->memory)) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for the optimizer's state: %.1f MB", (double)o->bytes * 1e-6);
        goto fail;
    }
    bb_arena arena = {.base = o->memory};
    bb_optimizer_layout(&model->table, &o->shards, rank, options->kind, o->slots, &arena);
    for (int i = 0; i < o->shards.piece_count; i++)
        if (o->slots[i].form == BB_MOMENTS_8BIT) dev->ops->adamw8bit_init(dev, o->slots[i].q, o->shards.pieces[i].count);
    BB_TRY_GOTO(status, fail, make_matrices(o, err));
    if (o->dist) BB_TRY_GOTO(status, fail, bb_weight_exchange_open(model, o->dist, &o->shards, &o->tiles, &o->exchange, err));
    *out = o;
    return dev->ops->sync(dev, err);
fail:
    bb_optimizer_free(o);
    return status;
}

void bb_optimizer_free(bb_optimizer *o) {
    if (!o) return;
    BB_DEVICE_SCOPE(o->model->device);
    if (o->memory) o->model->device->ops->free(o->model->device, o->memory, o->bytes);
    bb_weight_exchange_close(&o->exchange);
    bb_tile_sums_close(&o->tiles);
    bb_shards_free(&o->shards);
    free(o->matrices);
    free(o->slots);
    free(o);
}

bool bb_optimizer_is_8bit(const bb_optimizer *o) { return o && o->options.kind == BB_OPTIM_ADAMW8BIT; }
const char *bb_optimizer_name(const bb_optimizer *o) { return o ? names[o->options.kind] : "none"; }
uint64_t bb_optimizer_state_bytes(const bb_optimizer *o) { return o ? o->bytes : 0; }

const bb_model *bb_optimizer_model(const bb_optimizer *o) { return o->model; }
bb_dist *bb_optimizer_dist(const bb_optimizer *o) { return o->dist; }
const bb_shards *bb_optimizer_parts(const bb_optimizer *o) { return o->dist ? &o->shards : NULL; }
double bb_optimizer_lr(const bb_optimizer *o) { return o->options.lr; }
int64_t bb_optimizer_steps(const bb_optimizer *o) { return o->steps; }
void bb_optimizer_set_norm_limit(bb_optimizer *o, double limit) { o->norm_limit = limit; }

bb_status bb_optimizer_gather_weights(bb_optimizer *o, bb_error *err) {
    return o->dist ? bb_weight_exchange_f32(&o->exchange, err) : BB_OK;
}

bb_status bb_optimizer_gather_weights_to_rank_0(bb_optimizer *o, bb_error *err) {
    return o->dist ? bb_weight_exchange_f32_to_rank_0(&o->exchange, err) : BB_OK;
}

uint64_t bb_optimizer_weights_checksum(const bb_optimizer *o, int part, int parts) {
    return bb_weight_exchange_sum(&o->exchange, part, parts);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

bb_status bb_optimizer_grad_norm(bb_optimizer *o, double *norm, bb_error *err) {
    bb_device *dev = o->model->device;
    double sum = 0;
    BB_TRY(bb_tile_sums_compute(&o->tiles, dev->ops->sum_squares, o->model->grads, err));
    for (int i = 0; i < o->model->table.count; i++) bb_tile_sums_add(&o->tiles, i, &sum);
    *norm = sqrt(sum);
    return BB_OK;
}

/* lr: the rate of n-gram embeddings */
static void update_piece(bb_optimizer *o, int index, bb_adamw *h, double lr) {
    bb_model *model = o->model;
    bb_device *dev = model->device;
    const bb_piece *p = &o->shards.pieces[index];
    const bb_optimizer_slot *s = &o->slots[index];
    float *values = model->params + offset_of(o, p), *grads = model->grads + offset_of(o, p);
    h->weight_decay = model->table.entries[p->param].decays || o->options.decay_all ? o->options.weight_decay : 0;
    if (s->form == BB_MOMENTS_ROWS) {
        int64_t C = model->table.entries[p->param].shape[1];
        bb_row_adagrad of_rows = {.lr = lr, .eps = o->options.eps, .grad_scale = h->grad_scale};
        dev->ops->row_adagrad_step(dev, values, grads, s->row_sums, p->count / C, C, &of_rows);
    } else if (s->form == BB_MOMENTS_8BIT) {
        dev->ops->adamw8bit_step(dev, values, grads, s->q, p->count, h);
    } else {
        dev->ops->adamw_step(dev, values, grads, s->m, s->v, p->count, h);
    }
}

bb_status bb_optimizer_step(bb_optimizer *o, double lr, double max_norm, double loss_scale, double *grad_norm, bool *applied,
                            bb_error *err) {
    BB_REQUIRE("optimizer, grad_norm, applied", o, grad_norm, applied);
    BB_DEVICE_SCOPE(o->model->device);
    bb_model *model = o->model;
    *applied = false;
    if (!(lr >= 0) || !isfinite(lr)) return bb_fail(err, BB_ERR_ARGUMENT, "lr %g must be finite and not negative", lr);
    if (!(max_norm >= 0)) return bb_fail(err, BB_ERR_ARGUMENT, "max_norm %g must not be negative (0: no clipping)", max_norm);
    if (!(loss_scale > 0) || !isfinite(loss_scale))
        return bb_fail(err, BB_ERR_ARGUMENT, "loss_scale %g must be finite and above 0", loss_scale);
    if (!model->grads) return bb_fail(err, BB_ERR_ARGUMENT, "an optimizer step before any backward pass");
    BB_TRY(bb_model_settle_gradients(model, err));
    BB_TRY(bb_optimizer_grad_norm(o, grad_norm, err));
    *grad_norm /= loss_scale;
    if (!isfinite(*grad_norm) || *grad_norm > o->norm_limit) return BB_OK;

    const bb_optimizer_options *opt = &o->options;
    double t = (double)(o->steps + 1), scale = max_norm > 0 ? max_norm / (*grad_norm + 1e-6) : 1;
    double share = opt->lr > 0 ? lr / opt->lr : 0; /* relative to the peak rates, at this step */
    bb_adamw h = {.lr = opt->kind == BB_OPTIM_MUON ? share * opt->lr_adam : lr,
                  .beta1 = opt->beta1,
                  .beta2 = opt->beta2,
                  .eps = opt->eps,
                  .grad_scale = ((scale < 1 ? scale : 1) / loss_scale),
                  .bias_correction1 = (1 - pow(opt->beta1, t)),
                  .bias_correction2 = (1 - pow(opt->beta2, t))};
    bb_muon of_matrices = {.lr = lr,
                           .weight_decay = opt->weight_decay,
                           .momentum = opt->momentum,
                           .grad_scale = h.grad_scale,
                           .iterations = opt->muon_iterations};
    for (int i = 0; i < o->shards.piece_count; i++)
        if (is_own(o, &o->shards.pieces[i]) && o->slots[i].form != BB_MOMENTUM_BF16)
            update_piece(o, i, &h, share * opt->lr_ngram);
    int64_t matrices = list_matrices(o, o->matrices);
    if (matrices > 0) model->device->ops->muon_step(model->device, o->matrices, matrices, &of_matrices);
    BB_TRY(model->device->ops->sync(model->device, err));
    if (o->dist)
        BB_TRY(bb_weight_exchange_after_update(&o->exchange, err));
    else
        bb_model_parameters_changed(model);
    o->steps++;
    *applied = true;
    return BB_OK;
}
