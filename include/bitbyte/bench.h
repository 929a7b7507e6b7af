// SPDX-License-Identifier: MIT
/* Where the time goes: profiles and benchmarks. */
#ifndef BITBYTE_BENCH_H
#define BITBYTE_BENCH_H

#include "inference.h"
#include "training.h"

/* Wraps `device` and times each operation of models created on the wrapper, without changing results. The caller still closes
 * `device`, later, and must not use it directly meanwhile. First measures the peaks, which takes about one second and 0.5
 * GB. */
BB_API bb_status bb_profile_open(bb_device *device, bb_device **out, bb_error *err);
BB_API bb_status bb_profile_start(bb_device *profiled, bb_error *err); /* resets all timings */
/* Returns JSON (free it with bb_string_free): `operations`, longest first, with calls, ms, percent of the time since start and,
 * if known, percent of peak; and `shares`. */
BB_API bb_status bb_profile_report(const bb_device *profiled, const bb_config *config, char **json, bb_error *err);

typedef struct bb_bench_options {
    size_t struct_size;
    const char *shape;       /* "S", "M" or "L" */
    int batch_size, seq_len; /* 0: the shape's batch size; 512 */
    int repeats;
    bb_optimizer_kind optim;
    bool recompute; /* as in training by default; the limit then includes the recomputation */
    bool step_only; /* do not time single operations */
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_bench_options;
BB_OPTIONS(bb_bench_options);
/* Times training steps at a model shape and their operations. JSON: bytes/s and percent of measured peaks. */
BB_API bb_status bb_bench(bb_device *device, const bb_bench_options *options, char **json, bb_error *err);

typedef struct bb_decode_bench_options {
    size_t struct_size;
    const char *shape; /* "S", "M" or "L" */
    int repeats;
    bb_kv_type kv_cache;
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_decode_bench_options;
BB_OPTIONS(bb_decode_bench_options);
/* Times inference at a model shape with random weights. JSON: bytes/s of decoding at positions 0, 1,024 and 4,096 and of
 * reading 512 bytes, decoding 16 sequences at once, loading a packed file, resident memory, percent of peaks. Writes a temporary model to TMPDIR. */
BB_API bb_status bb_bench_decode(bb_device *device, const bb_decode_bench_options *options, char **json, bb_error *err);

#endif
