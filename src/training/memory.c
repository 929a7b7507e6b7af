// SPDX-License-Identifier: MIT
/* Estimates how much memory a run takes, using the functions that lay it out. */
#include "core/host.h"
#include "core/options.h"
#include "model/kv_cache.h"
#include "training/collectives.h"
#include "training/gradients.h"
#include "training/optim.h"
#include "training/saver.h"
#include "training/train_options.h"

BB_OPTIONS_DEFAULTS(bb_memory_request, .optim = BB_OPTIM_ADAMW8BIT, .batch_size = 1, .seq_len = 2048);

void bb_host_memory_bytes(uint64_t *total_bytes, uint64_t *free_bytes) {
    uint64_t total, free;
    bb_host_memory("", &total, &free);
    if (total_bytes) *total_bytes = total;
    if (free_bytes) *free_bytes = free;
}

/* Returns the total that counts buffers in host memory. */
static uint64_t *in_host_memory(bb_memory_estimate *e) { return e->own_memory ? &e->host_total : &e->total; }

bb_status bb_memory_predict(bb_device *device, const bb_config *config, const bb_memory_request *given, bb_memory_estimate *out,
                            bb_error *err) {
    BB_REQUIRE("device, config, request, out", device, config, given, out);
    BB_OPTIONS_READ(bb_memory_request, request, given);
    int batch_size = request->batch_size, seq_len = request->seq_len;
    BB_TRY(bb_config_check(config, err));
    BB_TRY(bb_optimizer_check_kind(request->optim, err));
    if (batch_size < 1 || seq_len < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d and seq_len %d must be at least 1", batch_size, seq_len);
    bb_param_table table;
    *out = (bb_memory_estimate){0};
    out->parameters = bb_config_parameters(config) * sizeof(float);
    out->gradients = out->parameters;
    BB_TRY(bb_optimizer_predict(config, request->optim, 0, 1, &out->optimizer, err));
    out->quantized_weights = bb_weights_bytes(device, config, false);
    bb_workspace_shape shape = {
        .B = batch_size, .T = seq_len, .positions = seq_len, .training = true, .recompute = request->recompute};
    out->activations = bb_workspace_bytes(device, config, &shape);
    int64_t heads = config->n_head;
    bb_attention attention = {
        .B = batch_size, .Tq = seq_len, .Tk = seq_len, .H = heads, .Hk = config->n_kv_head, .D = config->d_model / heads};
    int64_t widest = config->vocab_size; /* in a dense model, layers are products like the head's */
    if (config->dense) widest = bb_max(widest, bb_max(2 * config->d_ff, config->d_model + 2 * attention.Hk * attention.D));
    out->scratch = device->ops->scratch_bytes(device, &attention, config->d_model, widest);
    if (request->optim == BB_OPTIM_MUON) { /* it uses the same memory, after the backward pass */
        size_t muon = device->ops->muon_scratch(device, config->d_ff, config->d_model);
        if (muon > out->scratch) out->scratch = muon;
    }
    out->checkpoint_copy = out->parameters + out->optimizer;
    if (!bb_snapshot_copy_is_small(out->checkpoint_copy)) out->checkpoint_copy = 0;
    out->own_memory = !device->ops->host_memory;
    BB_TRY(bb_param_table_create(config, true, &table, err));
    if (out->own_memory) out->scratch += bb_tile_sums_bytes(table.total, table.count);
    out->total = out->parameters + out->gradients + out->optimizer + out->quantized_weights + out->activations + out->scratch;
    *in_host_memory(out) += out->checkpoint_copy;
    out->inference_weights = (uint64_t)table.held * sizeof(float) + out->quantized_weights;
    bb_param_table_free(&table);
    out->kv_cache = bb_kv_cache_bytes(device, config, seq_len, BB_KV_INT6);
    out->inference_total = out->inference_weights + out->kv_cache + bb_kv_cache_workspace_bytes(device, config, seq_len);
    return BB_OK;
}

bb_status bb_memory_predict_rank(const bb_config *config, const bb_train_options *given_train,
                                 const bb_optimizer_options *given_optimizer, bb_memory_estimate *estimate, bb_error *err) {
    BB_REQUIRE("config, options, optimizer, estimate", config, given_train, given_optimizer, estimate);
    BB_OPTIONS_READ(bb_train_options, options, given_train);
    BB_OPTIONS_READ(bb_optimizer_options, optimizer, given_optimizer);
    BB_TRY(bb_config_check(config, err));
    BB_TRY(bb_train_options_check(options, err));
    bb_dist alone = {.size = 1}; /* a single process exchanges nothing */
    const bb_dist *dist = options->dist ? options->dist : &alone;
    bb_micro_run run;
    BB_TRY(bb_micro_run_for_rank(options, dist->rank, dist->size, &run, err));
    bb_param_table table;
    BB_TRY(bb_param_table_create(config, false, &table, err));
    bool shared_out = optimizer->share_over && optimizer->share_over->size > 1; /* a single rank has all */
    bool whole_matrices = optimizer->kind == BB_OPTIM_MUON && shared_out;
    uint64_t partial = bb_gradients_predict(&table, run.count, options->reduce), *host = in_host_memory(estimate);
    int64_t rows = (int64_t)options->batch_size * bb_train_seq_len(options, options->steps - 1);
    partial += bb_gradients_predict_losses(run.count, rows, estimate->own_memory);
    uint64_t buffers = bb_gradients_buffers(&table, whole_matrices, dist, estimate->own_memory);
    bb_param_table_free(&table);
    estimate->reduction = partial + buffers;
    estimate->total += partial;
    *host += buffers;
    *host -= estimate->checkpoint_copy;
    estimate->checkpoint_copy = estimate->parameters + estimate->optimizer; /* rank 0 copies the state of all ranks */
    if (dist->rank > 0 || bb_saver_mode_for(options, estimate->checkpoint_copy, shared_out) != BB_SAVER_SNAPSHOT)
        estimate->checkpoint_copy = 0;
    *host += estimate->checkpoint_copy;
    if (!shared_out) return BB_OK;
    estimate->total -= estimate->optimizer;
    BB_TRY(bb_optimizer_predict(config, optimizer->kind, dist->rank, dist->size, &estimate->optimizer, err));
    estimate->total += estimate->optimizer;
    return BB_OK;
}
