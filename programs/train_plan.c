// SPDX-License-Identifier: MIT
#include "train_plan.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "progress.h"

static bool is_auto(const bb_train_args *args) { return !args->size || strcmp(args->size, "auto") == 0; }

int bb_train_size(const bb_cli *cli, bb_train_args *args) {
    if (!args->size) return BB_CLI_CONTINUE;
    if (args->resume || args->init) {
        bb_cli_unused(cli, "size", "the model file determines the shape");
        return BB_CLI_CONTINUE;
    }
    if (!is_auto(args)) return bb_model_args_of_size(cli, &args->model, args->size);
    const char *shape_option = bb_model_args_given_shape(cli);
    if (shape_option) return bb_cli_usage_error(&bb_train_command, "give --size or --%s, not both", shape_option);
    return args->minutes > 0 ? BB_CLI_CONTINUE : bb_cli_usage_error(&bb_train_command, "--size auto requires --minutes");
}

static bb_status data_bytes(const bb_train_args *args, int64_t *bytes, bb_error *err) {
    bb_dataset *dataset;
    bb_status status = bb_byte_shard_dataset_open(args->data, 1, (uint64_t)args->seed, 0, 1, &dataset, err);
    if (status != BB_OK) return status;
    *bytes = bb_dataset_get_info(dataset).bytes;
    bb_dataset_close(dataset);
    return BB_OK;
}

static int given_int(const bb_cli *cli, const char *name, int value) { return bb_cli_given(cli, name) ? value : 0; }

int bb_train_plan_check(const bb_cli *cli, const bb_train_args *args) {
    if (!bb_cli_given(cli, "minutes")) return BB_CLI_CONTINUE;
    if (args->resume) {
        bb_cli_unused(cli, "minutes", "a resumed run keeps its number of steps; use --max_minutes to limit the time");
        return BB_CLI_CONTINUE;
    }
    if (args->model.dense)
        return bb_cli_usage_error(&bb_train_command,
                                  "--minutes plans for ternary models; with --dense, give --size and --steps");
    if (bb_cli_given(cli, "steps")) return bb_cli_usage_error(&bb_train_command, "give --minutes or --steps, not both");
    if (bb_cli_given(cli, "steps_before"))
        return bb_cli_usage_error(&bb_train_command, "give --minutes or --steps_before, not both");
    if (args->options.global_batch > INT_MAX)
        return bb_cli_usage_error(&bb_train_command, "--global_batch %lld: expected at most %d with --minutes",
                                  (long long)args->options.global_batch, INT_MAX);
    return BB_CLI_CONTINUE;
}

bb_status bb_train_plan(const bb_cli *cli, bb_dist *dist, bool has_shape, bb_train_args *args, bb_error *err) {
    bb_train_options *o = &args->options;
    bb_device *device = NULL;
    double start = bb_monotonic_seconds();
    if (!(args->minutes > 0) || args->resume) return BB_OK;
    bb_config config;
    bb_model_args_config(&args->model, &config);
    const bb_optimizer_options optimizer = bb_train_optimizer_options(args, dist);
    bb_plan_request request = {.struct_size = sizeof(bb_plan_request),
                               .minutes = args->minutes,
                               .config = has_shape || !is_auto(args) || bb_model_args_given_shape(cli) ? &config : NULL,
                               .seq_len = given_int(cli, "seq_len", o->seq_len),
                               .batch_size = given_int(cli, "batch_size", o->batch_size),
                               .grad_accum = given_int(cli, "grad_accum", o->grad_accum),
                               .global_batch = given_int(cli, "global_batch", (int)o->global_batch),
                               .ngram_max = config.ngram_max,
                               .ngram_bits = config.ngram_bits,
                               .optimizer = &optimizer,
                               .dist = dist};
    bb_status status = bb_dist_agree(dist, data_bytes(args, &request.data_bytes, err), err);
    if (status == BB_OK) status = bb_train_device_open(args, dist, &device, err);
    if (status == BB_OK) status = bb_plan_run(device, &request, &args->plan, err);
    bb_device_close(device);
    if (status != BB_OK) return status;
    const bb_plan *p = &args->plan;
    if (!request.config) bb_model_args_set_shape(&args->model, &p->config);
    o->steps = p->steps;
    o->seq_len = p->seq_len;
    o->batch_size = p->batch_size;
    o->grad_accum = p->grad_accum;
    if (!bb_cli_given(cli, "no_ckpt")) args->no_ckpt = !p->recompute;
    o->budget_minutes = p->budget_minutes;
    o->budget_max_steps = p->max_steps;
    double used = (bb_monotonic_seconds() - start) / 60;
    if (used < o->budget_minutes / 2) o->budget_minutes -= used;
    return BB_OK;
}
