// SPDX-License-Identifier: MIT
/* Sampling. A sample is a pure function of (seed, its number, seq_len), so the position is the only state: a resumed run
 * continues with the same bytes, and ranks share the work by taking disjoint ranges of numbers.
 *
 * With T = seq_len, an epoch has an offset o < T. Its windows begin at o, o + T, o + 2T, … of every file, while T + 1 bytes
 * fit. T epochs make a cycle, in which each offset o occurs once, in an order that a permutation of the cycle gives. So in a
 * cycle, every place of a file at which a window fits occurs exactly once: sample n is in cycle n / (number of places), and its
 * epoch is found by counting through at most T epochs. */
#include "data/dataset.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

/* Returns the number of offsets at which a window fits. */
static uint64_t windows_of(const bb_byte_file *file, int seq_len) {
    return file->size > seq_len ? (uint64_t)(file->size - seq_len) : 0;
}

static uint64_t count_offsets(const bb_byte_source *source, int seq_len) {
    uint64_t count = 0;
    for (int i = 0; i < source->count; i++) count += windows_of(&source->files[i], seq_len);
    return count;
}

static bb_status no_usable_file(const bb_dataset *dataset, int seq_len, bb_error *err) {
    const bb_byte_file *longest = &dataset->source.files[0];
    for (int i = 1; i < dataset->source.count; i++)
        if (dataset->source.files[i].size > longest->size) longest = &dataset->source.files[i];
    if (dataset->source.count == 1)
        return bb_fail(err, BB_ERR_DATA, "%s: %" PRId64 " bytes, expected at least %" PRId64 " (seq_len %d plus one)",
                       longest->path, longest->size, (int64_t)seq_len + 1, seq_len);
    return bb_fail(err, BB_ERR_DATA,
                   "%s: none of its %d files has the %" PRId64
                   " bytes of a window (seq_len %d plus one); the longest, %s, has %" PRId64,
                   dataset->name, dataset->source.count, (int64_t)seq_len + 1, seq_len, longest->path, longest->size);
}

bb_status bb_dataset_set_seq_len(bb_dataset *dataset, int seq_len, bb_error *err) {
    BB_REQUIRE("dataset", dataset);
    if (seq_len < 1) return bb_fail(err, BB_ERR_ARGUMENT, "seq_len: expected at least 1, found %d", seq_len);
    const bb_byte_source *source = &dataset->source;
    bb_dataset_info info = {0};
    const bb_byte_file *first_skipped = NULL;
    for (int i = 0; i < source->count; i++) {
        const bb_byte_file *file = &source->files[i];
        if (windows_of(file, seq_len) > 0) {
            info.shards++;
            info.bytes += file->size;
        } else {
            info.skipped_shards++;
            if (!first_skipped) first_skipped = file;
        }
    }
    if (info.shards == 0) return no_usable_file(dataset, seq_len, err); /* the dataset has not been changed yet */
    uint8_t *window = realloc(dataset->window, (size_t)seq_len + 1);
    if (!window) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for a window of %d bytes", dataset->name, seq_len);
    dataset->window = window;
    if (first_skipped) {
        snprintf(dataset->warning, sizeof dataset->warning,
                 "%" PRId64 " of %d shards hold fewer than the %" PRId64
                 " bytes of a window and are skipped; the first is %s (%" PRId64 " bytes)",
                 info.skipped_shards, source->count, (int64_t)seq_len + 1, first_skipped->path, first_skipped->size);
        info.warning = dataset->warning;
    }
    dataset->info = info;
    dataset->seq_len = seq_len;
    dataset->offsets = count_offsets(source, seq_len);
    bb_dataset_set_sampling(dataset, dataset->sampling); /* discards the cached epoch of the old length */
    return BB_OK;
}

/* Fills first_windows for windows at `offset` and every `stride` bytes after it. */
static uint64_t number_windows(bb_dataset *dataset, uint64_t offset, uint64_t stride) {
    uint64_t total = 0;
    for (int i = 0; i < dataset->source.count; i++) {
        uint64_t fit = windows_of(&dataset->source.files[i], dataset->seq_len);
        dataset->first_windows[i] = total;
        total += fit > offset ? (fit - offset - 1) / stride + 1 : 0;
    }
    return dataset->first_windows[dataset->source.count] = total;
}

void bb_dataset_set_sampling(bb_dataset *dataset, bb_sampling sampling) {
    dataset->sampling = sampling;
    dataset->epoch_samples = 0;
    if (sampling == BB_SAMPLING_WITH_REPLACEMENT) (void)number_windows(dataset, 0, 1);
}

double bb_dataset_epochs(const bb_dataset *dataset, int seq_len, double samples) {
    if (!dataset || seq_len < 1) return 0;
    double offsets = (double)count_offsets(&dataset->source, seq_len);
    return offsets > 0 ? samples * seq_len / offsets : 0;
}

bb_status bb_dataset_create(bb_byte_source *source, const char *name, const bb_dataset_options *options, bb_dataset **out,
                            bb_error *err) {
    int rank = options->rank, world_size = options->world_size;
    bb_status status = BB_OK;
    bb_dataset *dataset = calloc(1, sizeof *dataset);
    *out = NULL;
    if (!dataset) {
        bb_byte_source_close(source);
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for a dataset", name);
    }
    dataset->source = *source;
    *source = (bb_byte_source){0};
    dataset->seed = options->seed;
    dataset->rank = rank;
    dataset->world_size = world_size;
    if (world_size < 1 || rank < 0 || rank >= world_size) {
        status = bb_fail(err, BB_ERR_ARGUMENT, "rank, world_size: expected 0 <= rank < world_size, found %d and %d", rank,
                         world_size);
        goto failed;
    }
    dataset->name = strdup(name);
    dataset->first_windows = calloc((size_t)dataset->source.count + 1, sizeof *dataset->first_windows);
    if (!dataset->name || !dataset->first_windows) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory for a table of %d files", name, dataset->source.count);
        goto failed;
    }
    BB_TRY_GOTO(status, failed, bb_dataset_set_seq_len(dataset, options->seq_len, err));
    *out = dataset;
    return BB_OK;
failed:
    bb_dataset_close(dataset);
    return status;
}

void bb_dataset_close(bb_dataset *dataset) {
    if (!dataset) return;
    bb_byte_source_close(&dataset->source);
    free(dataset->first_windows);
    free(dataset->window);
    free(dataset->name);
    free(dataset);
}

int bb_dataset_seq_len(const bb_dataset *dataset) { return dataset ? dataset->seq_len : 0; }
bb_dataset_info bb_dataset_get_info(const bb_dataset *dataset) { return dataset ? dataset->info : (bb_dataset_info){0}; }
uint64_t bb_dataset_position(const bb_dataset *dataset) { return dataset ? dataset->position : 0; }
void bb_dataset_set_position(bb_dataset *dataset, uint64_t samples) {
    if (dataset) dataset->position = samples;
}

static void enter_epoch(bb_dataset *dataset, uint64_t epoch, uint64_t first_sample) {
    uint64_t cycle = epoch / (uint64_t)dataset->seq_len, place = epoch % (uint64_t)dataset->seq_len;
    uint64_t cycle_key = bb_rng_u64(dataset->seed, BB_STREAM_EPOCH_OFFSETS, cycle);
    dataset->epoch = epoch;
    dataset->epoch_first = first_sample;
    dataset->epoch_offset = bb_rng_permute(cycle_key, place, (uint64_t)dataset->seq_len);
    dataset->epoch_samples = number_windows(dataset, dataset->epoch_offset, (uint64_t)dataset->seq_len);
    dataset->epoch_key = bb_rng_u64(dataset->seed, BB_STREAM_EPOCH_WINDOWS, epoch);
}

/* Returns the index of sample n within its epoch. An epoch may be empty if all files are short. */
static uint64_t find_epoch(bb_dataset *dataset, uint64_t n) {
    uint64_t cycle_first = n / dataset->offsets * dataset->offsets;
    if (dataset->epoch_samples == 0 || n < dataset->epoch_first || dataset->epoch_first < cycle_first)
        enter_epoch(dataset, n / dataset->offsets * (uint64_t)dataset->seq_len, cycle_first);
    while (n - dataset->epoch_first >= dataset->epoch_samples)
        enter_epoch(dataset, dataset->epoch + 1, dataset->epoch_first + dataset->epoch_samples);
    return n - dataset->epoch_first;
}

bb_window bb_dataset_sample(bb_dataset *dataset, uint64_t n) {
    const uint64_t *first = dataset->first_windows;
    uint64_t window, offset = 0, stride = 1;
    if (dataset->sampling == BB_SAMPLING_WITH_REPLACEMENT) {
        window = bb_rng_below(dataset->seed, BB_STREAM_DATA, n, dataset->offsets);
    } else {
        uint64_t place = find_epoch(dataset, n);
        window = bb_rng_permute(dataset->epoch_key, place, dataset->epoch_samples);
        offset = dataset->epoch_offset;
        stride = (uint64_t)dataset->seq_len;
    }
    int low = 0, high = dataset->source.count;
    while (high - low > 1) { /* first[low] <= window < first[high]; files without windows have first[i] == first[i+1] */
        int middle = low + (high - low) / 2;
        if (first[middle] <= window)
            low = middle;
        else
            high = middle;
    }
    return (bb_window){.file = low, .offset = (int64_t)(offset + (window - first[low]) * stride)};
}

bb_status bb_dataset_batch(bb_dataset *dataset, int batch_size, int grad_accum, int micro, uint8_t *x, uint8_t *y,
                           bb_error *err) {
    BB_REQUIRE("dataset, x, y", dataset, x, y);
    if (batch_size < 1 || grad_accum < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size, grad_accum: expected at least 1, found %d and %d", batch_size,
                       grad_accum);
    if (micro < 0 || micro >= grad_accum)
        return bb_fail(err, BB_ERR_ARGUMENT, "micro: expected 0 to %d (grad_accum - 1), found %d", grad_accum - 1, micro);
    uint64_t before = (uint64_t)dataset->rank * (uint64_t)grad_accum + (uint64_t)micro;
    uint64_t first = dataset->position + before * (uint64_t)batch_size;
    size_t seq_len = (size_t)dataset->seq_len;
    for (int row = 0; row < batch_size; row++) {
        bb_window w = bb_dataset_sample(dataset, first + (uint64_t)row);
        BB_TRY(bb_byte_source_read(&dataset->source, w.file, w.offset, dataset->window, seq_len + 1, err));
        memcpy(x + (size_t)row * seq_len, dataset->window, seq_len);
        memcpy(y + (size_t)row * seq_len, dataset->window + 1, seq_len);
    }
    return BB_OK;
}

void bb_dataset_next_step(bb_dataset *dataset, int batch_size, int grad_accum) {
    if (!dataset || batch_size < 1 || grad_accum < 1) return;
    dataset->position += (uint64_t)grad_accum * (uint64_t)batch_size * (uint64_t)dataset->world_size;
}
