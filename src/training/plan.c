// SPDX-License-Identifier: MIT
/* Chooses what to train in a given time: shape, batch, sequence length, steps. The constants come from docs/LEARNING.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/math.h"
#include "core/options.h"
#include "core/rng.h"
#include "model/config.h"
#include "model/params.h"
#include "training/optim.h"

enum {
    MAX_EPOCHS = 20,   /* more repetitions of a text teach little, and then harm */
    USEFUL_EPOCHS = 4, /* a text that is read more often does not call for a larger model (arXiv:2305.16264) */
    TARGET_STEPS = 1500,
    MIN_STEP_BYTES = 2048,
    MAX_STEP_BYTES = 65536,
    MICRO_BATCH = 8,
    TRIAL_SEQUENCE = 256
};
static const char trial_size[] = "3m";

/* Returns the relative work of a training step per byte. */
static double work_per_byte(const bb_config *c, int seq_len) {
    double C = c->d_model, kv = C * c->n_kv_head / c->n_head,
           matrices = c->n_layer * (2 * C * C + 2 * C * kv + 3 * C * c->d_ff);
    return 6 * (matrices + (double)c->vocab_size * C) + 6.0 * c->n_layer * seq_len * C;
}

typedef struct trial_run {
    bb_model *model;
    bb_optimizer *optimizer;
    uint8_t *text;
} trial_run;

static bb_status trial_step(const trial_run *t, const bb_train_batch *batch, int micro_batches, bb_error *err) {
    double loss, norm;
    bool applied;
    BB_TRY(bb_model_zero_gradients(t->model, err));
    for (int i = 0; i < micro_batches; i++) BB_TRY(bb_model_loss_backward(t->model, batch, 1, &loss, err));
    return bb_optimizer_step(t->optimizer, 1e-6, 1, 1, &norm, &applied, err);
}

static bb_optimizer_options default_optimizer(void) {
    bb_optimizer_options options;
    bb_optimizer_options_default(&options);
    bb_recipe_options(BB_RECIPE_BITBYTE, NULL, &options);
    return options;
}

/* Measures the bytes per second of this process in steps of plan's shape; runs at least two steps, for about a second. */
static bb_status measure(bb_device *device, const bb_plan *plan, const bb_optimizer_options *optimizer,
                         double *bytes_per_second, bb_error *err) {
    enum { MAX_STEPS = 200 };
    trial_run t = {0};
    bb_status status;
    bb_optimizer_options options = *optimizer;
    options.share_over = NULL; /* each rank measures by itself */
    int64_t n = (int64_t)plan->batch_size * plan->seq_len;
    t.text = malloc((size_t)n + 1);
    if (!t.text) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a trial");
    for (int64_t i = 0; i <= n; i++) t.text[i] = (uint8_t)(' ' + bb_rng_below(1, BB_STREAM_BENCH, (uint64_t)i, 90));
    const bb_train_batch batch = {.x = t.text, .y = t.text + 1, .batch_size = plan->batch_size, .seq_len = plan->seq_len};
    BB_TRY_GOTO(status, done, bb_model_create(device, &plan->config, 1, &t.model, err));
    BB_TRY_GOTO(status, done, bb_model_reserve(t.model, batch.batch_size, batch.seq_len, true, plan->recompute, err));
    BB_TRY_GOTO(status, done, bb_optimizer_create(t.model, &options, &t.optimizer, err));
    BB_TRY_GOTO(status, done,
                trial_step(&t, &batch, plan->grad_accum, err)); /* the first step also allocates what later steps use */
    double start = bb_clock_seconds(), seconds = 0;
    int steps = 0;
    for (; steps < 2 || (seconds < 1 && steps < MAX_STEPS); steps++) {
        BB_TRY_GOTO(status, done, trial_step(&t, &batch, plan->grad_accum, err));
        seconds = bb_clock_seconds() - start;
    }
    *bytes_per_second = (double)(n * plan->grad_accum * steps) / seconds;
done:
    bb_optimizer_free(t.optimizer);
    bb_model_free(t.model);
    free(t.text);
    return status;
}

/* Chooses the model whose speed is extrapolated. */
static bb_status plan_trial(bool dense, bb_plan *trial, bb_error *err) {
    *trial = (bb_plan){.seq_len = TRIAL_SEQUENCE, .batch_size = MICRO_BATCH, .grad_accum = 1};
    BB_TRY(bb_config_of_size(trial_size, &trial->config, err));
    trial->config.dense = dense;
    trial->config.act_quant = !dense;
    return BB_OK;
}

static double extrapolate(double trial_speed, const bb_plan *trial, const bb_config *config, int seq_len) {
    return trial_speed * work_per_byte(&trial->config, trial->seq_len) / work_per_byte(config, seq_len);
}

bb_status bb_training_speed(bb_device *device, const bb_config *config, int seq_len, double *speed, bb_error *err) {
    BB_REQUIRE("device, config, speed", device, config, speed);
    bb_plan trial;
    *speed = 0;
    BB_TRY(bb_config_check(config, err));
    if (seq_len < 1) return bb_fail(err, BB_ERR_ARGUMENT, "seq_len %d must be at least 1", seq_len);
    BB_TRY(plan_trial(config->dense, &trial, err));
    const bb_optimizer_options optimizer = default_optimizer();
    BB_TRY(measure(device, &trial, &optimizer, speed, err));
    *speed = extrapolate(*speed, &trial, config, seq_len);
    return BB_OK;
}

/* Measures the speed of all ranks, which is that of the slowest. */
static bb_status measure_all(bb_device *device, const bb_plan_request *r, const bb_plan *plan, double *bytes_per_second,
                             bb_error *err) {
    bb_dist *dist = r->dist;
    *bytes_per_second = 1;
    bb_status status = measure(device, plan, r->optimizer, bytes_per_second, err);
    int size = dist ? bb_dist_size(dist) : 1;
    if (size == 1) return status;
    BB_TRY(bb_dist_agree(dist, status, err));
    uint64_t *all = calloc((size_t)size, sizeof *all), least = UINT64_MAX;
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "out of memory for %d speeds", size);
    status = bb_dist_all_gather_u64(dist, (uint64_t)*bytes_per_second, all, err);
    for (int i = 0; i < size; i++)
        if (all[i] < least) least = all[i];
    free(all);
    *bytes_per_second = (double)least * size;
    return status;
}

/* Returns whether there is memory to keep all activations, which is faster. */
static bool activations_fit(bb_device *device, const bb_plan_request *r, const bb_plan *plan, int ranks_here) {
    bb_memory_request request;
    bb_memory_request_default(&request);
    request.optim = r->optimizer->kind;
    request.batch_size = plan->batch_size;
    request.seq_len = plan->seq_len;
    bb_memory_estimate memory;
    bb_error ignored;
    uint64_t total, free;
    bb_device_memory(device, &total, &free);
    return bb_memory_predict(device, &plan->config, &request, &memory, &ignored) == BB_OK &&
           memory.total * (uint64_t)(memory.own_memory ? 1 : ranks_here) <= free / 2;
}

/* Returns whether time is the limit, rather than the number of epochs. */
static bool time_bounds(const bb_plan_request *r, double bytes_per_second, int epochs) {
    return bytes_per_second * r->minutes * 60 <= (double)r->data_bytes * epochs;
}

/* Returns the bytes that are read in the time, and in at most so many epochs. */
static double bytes_for(const bb_plan_request *r, double bytes_per_second, int epochs) {
    return time_bounds(r, bytes_per_second, epochs) ? bytes_per_second * r->minutes * 60 : (double)r->data_bytes * epochs;
}

/* Writes to text[size] which of the two is the limit. */
static const char *bound_text(const bb_plan_request *r, double bytes_per_second, int epochs, char *text, size_t size) {
    if (time_bounds(r, bytes_per_second, epochs)) return "the time";
    snprintf(text, size, "%d epochs of the data", epochs);
    return text;
}

static void set_ngrams(const bb_plan_request *r, bb_config *c) {
    c->ngram_max = r->ngram_max;
    c->ngram_bits = r->ngram_bits;
}

static bb_status choose_shape(const bb_plan_request *r, double trial_speed, const bb_plan *trial, bb_plan *p, bb_error *err) {
    if (r->config) {
        p->config = *r->config;
        snprintf(p->lines[0], sizeof p->lines[0], "shape as specified");
        return BB_OK;
    }
    if (r->size) {
        snprintf(p->lines[0], sizeof p->lines[0], "size %s, as specified", r->size);
        BB_TRY(bb_config_of_size(r->size, &p->config, err));
        set_ngrams(r, &p->config);
        return bb_config_check(&p->config, err);
    }
    char bound[64];
    for (int i = BB_SIZES - 1; i >= 0; i--) {
        BB_TRY(bb_config_of_size(bb_size_name(i), &p->config, err));
        double speed = extrapolate(trial_speed, trial, &p->config, p->seq_len);
        double parameters =
            (double)bb_config_parameters(&p->config); /* n-gram embeddings do not count, because a byte uses few of them */
        /* A smaller model learns more in the same time than one that reads less than a byte per parameter. */
        bool enough = bytes_for(r, speed, USEFUL_EPOCHS) >= parameters;
        if (!enough && i > 0) continue;
        set_ngrams(r, &p->config);
        snprintf(p->lines[0], sizeof p->lines[0], "size %s: the %s a byte per parameter in %s", bb_size_name(i),
                 enough ? "largest that reads" : "smallest; it does not read",
                 bound_text(r, speed, USEFUL_EPOCHS, bound, sizeof bound));
        return BB_OK;
    }
    return BB_OK;
}

/* Short runs use short sequences: more of them fit in a step, and long-range structure is learned last. */
static int choose_seq_len(const bb_plan_request *r) {
    int length = r->minutes < 10 ? 256 : r->minutes < 120 ? 512 : 1024;
    return (int)bb_clamp(r->data_bytes / 8, 16, length);
}

/* Returns how many sequences a step has, on all ranks. */
static int64_t choose_batch(const bb_plan_request *r, double bytes, int ranks, bb_plan *p) {
    int64_t step = MIN_STEP_BYTES;
    while (step < MAX_STEP_BYTES && bytes / (double)(2 * step) >= TARGET_STEPS) step *= 2;
    int64_t sequences = bb_max((r->global_batch ? r->global_batch : step / p->seq_len) / ranks, 1);
    p->batch_size = r->batch_size ? r->batch_size : (int)bb_min(sequences, MICRO_BATCH);
    if (!r->batch_size && r->global_batch) /* a step is of whole batches */
        while (r->global_batch % p->batch_size != 0) p->batch_size--;
    p->grad_accum = r->grad_accum ? r->grad_accum : (int)bb_max(sequences / p->batch_size, 1);
    return r->global_batch ? r->global_batch : (int64_t)p->batch_size * p->grad_accum * ranks;
}

BB_OPTIONS_DEFAULTS(bb_plan_request);

bb_status bb_plan_run(bb_device *device, const bb_plan_request *given, bb_plan *p, bb_error *err) {
    BB_REQUIRE("device, request, out", device, given, p);
    BB_OPTIONS_READ(bb_plan_request, r, given);
    bb_optimizer_options optimizer = default_optimizer();
    BB_TRY(bb_options_read(&optimizer, sizeof optimizer, r->optimizer, "bb_optimizer_options", err));
    r_read.optimizer = &optimizer;
    if (!(r->minutes > 0)) return bb_fail(err, BB_ERR_ARGUMENT, "minutes %g must be above 0", r->minutes);
    if (r->data_bytes < 2) return bb_fail(err, BB_ERR_ARGUMENT, "%lld bytes of data are too few", (long long)r->data_bytes);
    int ranks = r->dist ? bb_dist_size(r->dist) : 1, here = r->dist ? bb_dist_local_size(r->dist) : 1;
    double trial_speed;
    bb_plan trial;
    BB_TRY(plan_trial(r->config && r->config->dense, &trial, err));
    BB_TRY(measure_all(device, r, &trial, &trial_speed, err));
    *p = (bb_plan){.seq_len = r->seq_len ? r->seq_len : choose_seq_len(r)};
    BB_TRY(choose_shape(r, trial_speed, &trial, p, err));
    double speed = extrapolate(trial_speed, &trial, &p->config, p->seq_len);
    int64_t sequences = choose_batch(r, bytes_for(r, speed, MAX_EPOCHS), ranks, p), step_bytes = sequences * p->seq_len;
    p->recompute = !activations_fit(device, r, p, here);
    double step_seconds = (double)step_bytes / speed;
    bool measured = 4 * step_seconds <
                    0.02 * 60 * r->minutes; /* otherwise the first steps of the run itself measure the speed soon enough */
    if (measured) BB_TRY(measure_all(device, r, p, &speed, err));
    double bytes = bytes_for(r, speed, MAX_EPOCHS);
    char bound[64];
    p->bytes_per_second = speed;
    p->budget_minutes = r->minutes;
    p->max_steps = bb_max((int64_t)((double)r->data_bytes * MAX_EPOCHS / (double)step_bytes), 1);
    p->steps = bb_max((int64_t)(bytes / (double)step_bytes), 1);
    snprintf(p->lines[1], sizeof p->lines[1], "%lld steps of %lld x %d bytes: %s at %.1f KB/s%s", (long long)p->steps,
             (long long)sequences, p->seq_len, bound_text(r, speed, MAX_EPOCHS, bound, sizeof bound), speed * 1e-3,
             measured ? ", measured" : ", estimated");
    snprintf(p->lines[2], sizeof p->lines[2], "%.3g MB in total, %.3g epochs of the data", bytes * 1e-6,
             bytes / (double)r->data_bytes);
    snprintf(p->lines[3], sizeof p->lines[3], "%s",
             p->recompute ? "activations recomputed: little memory is free" : "activations kept: there is enough memory");
    return BB_OK;
}
