// SPDX-License-Identifier: MIT
/* Times decoding and reading a prompt with random weights, compared with the machine's peaks measured at the same time. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/host.h"
#include "core/options.h"
#include "core/rng.h"
#include "model/config.h"
#include "model/forward.h"

enum { SEQUENCES = 16, PROMPT = 512, TOKENS = 64, FILL_ROWS = 256, CAPACITY = 4096 + TOKENS, MAX_REPEATS = 1000 };

static const int64_t positions[] = {0, 1024, 4096};
enum { POSITIONS = sizeof positions / sizeof *positions };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static uint8_t text_at(int64_t i) { return (uint8_t)(' ' + bb_rng_below(1, BB_STREAM_BENCH, (uint64_t)i, 90)); }

/* ---- a model of random weights ------------------------------------------------------------------------------------------ */

/* Draws n bytes of codes; of each two random bits, 3 becomes 1. */
static void draw_codes(uint8_t *codes, size_t n, uint64_t stream) {
    for (size_t i = 0; i < n; i += 16) {
        uint32_t words[4];
        bb_philox(1, stream, i, words);
        for (int j = 0; j < 4; j++) words[j] ^= (words[j] & words[j] >> 1 & 0x55555555u) << 1;
        memcpy(codes + i, words, n - i < sizeof words ? n - i : sizeof words);
    }
}

static bb_status fill(bb_model *m, bb_error *err) {
    bb_device *dev = m->device;
    bb_status status = BB_OK;
    for (int i = 0; i < m->table.count && status == BB_OK; i++) {
        const bb_param *p = &m->table.entries[i];
        size_t bytes = p->ternary ? (size_t)(p->shape[0] * ((p->shape[1] + 3) / 4)) : (size_t)p->count * sizeof(float);
        uint8_t *host = malloc(bytes), *device = p->ternary ? dev->ops->alloc(dev, bytes) : NULL;
        if (!host || (p->ternary && !device)) {
            status = bb_fail(err, BB_ERR_MEMORY, "no memory for %s: %.1f MB", p->name, (double)bytes * 1e-6);
        } else if (p->ternary) {
            bb_ternary t = bb_model_ternary(m, i);
            float scale = 0.02f;
            draw_codes(host, bytes, BB_STREAM_INIT + (uint64_t)i);
            dev->ops->copy_in(dev, device, host, bytes);
            dev->ops->copy_in(dev, t.scale, &scale, sizeof scale);
            dev->ops->ternary_load(dev, &t, device);
        } else {
            bb_param_initial_values(&m->table, i, 0, p->count, 1, (float *)(void *)host);
            dev->ops->copy_in(dev, m->params + p->offset, host, bytes);
        }
        if (status == BB_OK) status = dev->ops->sync(dev, err);
        if (device) dev->ops->free(dev, device, bytes);
        free(host);
    }
    return status;
}

/* Loads the same model again, from a file that is not in the page cache. */
static bb_status load_cold(bb_device *dev, const bb_config *config, bb_model **model, double *seconds, bb_error *err) {
    const char *folder = getenv("TMPDIR");
    char path[512];
    (void)snprintf(path, sizeof path, "%s/bitbyte-bench-%ld.safetensors", folder && *folder ? folder : "/tmp", (long)getpid());
    *model = NULL;
    bb_model *drawn;
    BB_TRY(bb_model_create_for_inference(dev, config, &drawn, err));
    bb_status status = fill(drawn, err);
    if (status == BB_OK) status = bb_model_export_packed(drawn, path, err);
    bb_model_free(drawn);
    if (status == BB_OK) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
        double start = bb_clock_seconds();
        status = bb_model_load_for_inference(dev, path, model, err);
        *seconds = bb_clock_seconds() - start;
    }
    (void)unlink(path);
    return status;
}

/* Fills the cache with random rows up to position `length`. */
static bb_status fill_cache(bb_model *m, bb_kv_cache *cache, int64_t length, bb_error *err) {
    bb_device *dev = m->device;
    int64_t D = m->config.d_model / m->config.n_head, width = m->config.n_kv_head * D;
    size_t count = (size_t)(FILL_ROWS * width), bytes = count * sizeof(float);
    float *host = malloc(bytes), *rows = dev->ops->alloc(dev, bytes);
    if (!host || !rows) {
        free(host);
        if (rows) dev->ops->free(dev, rows, bytes);
        return bb_fail(err, BB_ERR_MEMORY, "no memory for %d rows", FILL_ROWS);
    }
    for (size_t i = 0; i < count; i++) host[i] = (float)bb_rng_uniform(2, BB_STREAM_BENCH, i) - 0.5f;
    dev->ops->copy_in(dev, rows, host, bytes);
    for (int l = 0; l < cache->kv.layers; l++)
        for (int64_t at = 0; at < length; at += FILL_ROWS) {
            bb_kv_sequence sequence = {.kv = &cache->kv, .length = at, .rows = bb_min(length - at, FILL_ROWS)};
            bb_kv_batch batch = {.sequences = &sequence, .B = 1, .H = m->config.n_head, .layer = l, .kv_stride = width};
            dev->ops->kv_append(dev, &batch, rows, rows);
        }
    bb_status status = dev->ops->sync(dev, err);
    dev->ops->free(dev, rows, bytes);
    free(host);
    return status;
}

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

typedef struct bench {
    const bb_decode_bench_options *options;
    bb_model *model;
    bb_kv_cache cache;
    bb_peaks peaks;
    double weight_bytes; /* bytes read for each byte decoded: packed weights and the head */
    double *times;       /* (repeats) */
    float *logits;       /* (V) */
} bench;

static void report_progress(const bench *b, const char *line) {
    if (b->options->on_progress) b->options->on_progress(b->options->user, line);
}

static bb_status decode(bench *b, int64_t position, bb_error *err) {
    b->cache.length = position;
    for (int64_t i = 0; i < TOKENS; i++) {
        uint8_t byte = text_at(position + i);
        BB_TRY(bb_model_forward_cached(b->model, &b->cache, &byte, 1, false, b->logits, err));
    }
    return BB_OK;
}

static bb_status measure_decode(bench *b, json_t *root, bb_error *err) {
    const bb_config *c = &b->model->config;
    double row = (double)bb_kv_cache_bytes(b->model->device, c, 1024, b->cache.kv.type) / 1024;
    json_t *list = json_array();
    json_object_set_new(root, "decode", list);
    BB_TRY(fill_cache(b->model, &b->cache, positions[POSITIONS - 1], err));
    for (int i = 0; i < POSITIONS; i++) {
        char line[96];
        for (int r = -1; r < b->options->repeats; r++) { /* the first one is not counted */
            double start = bb_clock_seconds();
            BB_TRY(decode(b, positions[i], err));
            if (r >= 0) b->times[r] = (bb_clock_seconds() - start) / TOKENS;
        }
        double t = median(b->times, b->options->repeats);
        double bytes = b->weight_bytes + row * ((double)positions[i] + TOKENS / 2.0);
        json_array_append_new(list, json_pack("{s:I, s:f, s:f, s:f}", "position", (json_int_t)positions[i], "bytes_per_s",
                                              1 / t, "read_mb", bytes * 1e-6, "percent_of_bandwidth",
                                              100 * bytes / (b->peaks.read_gb * 1e9) / t));
        (void)snprintf(line, sizeof line, "position %lld: %.1f bytes/s", (long long)positions[i], 1 / t);
        report_progress(b, line);
    }
    return BB_OK;
}

static bb_status measure_prefill(bench *b, json_t *root, bb_error *err) {
    uint8_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = text_at(i);
    for (int r = -1; r < b->options->repeats; r++) {
        double start = bb_clock_seconds();
        b->cache.length = 0;
        BB_TRY(bb_model_forward_cached(b->model, &b->cache, prompt, PROMPT, false, b->logits, err));
        if (r >= 0) b->times[r] = bb_clock_seconds() - start;
    }
    double t = median(b->times, b->options->repeats);
    double gops = 2e-9 * PROMPT * (double)(b->model->table.total - b->model->table.held) / t;
    json_object_set_new(root, "prefill",
                        json_pack("{s:i, s:f, s:f, s:f}", "bytes", PROMPT, "bytes_per_s", PROMPT / t, "gops", gops,
                                  "percent_of_int8_peak", b->peaks.int8 > 0 ? 100 * gops / b->peaks.int8 : 0));
    return BB_OK;
}

/* Decodes one byte of each of n sequences, TOKENS times, from empty caches. */
static bb_status decode_together(bench *b, bb_kv_cache *caches, float *logits, int64_t n, bb_error *err) {
    uint8_t bytes[SEQUENCES];
    bb_cached_rows parts[SEQUENCES];
    for (int64_t i = 0; i < n; i++) caches[i].length = 0;
    for (int64_t t = 0; t < TOKENS; t++) {
        for (int64_t i = 0; i < n; i++) {
            bytes[i] = text_at(t + i);
            parts[i] = (bb_cached_rows){.cache = &caches[i],
                                        .bytes = &bytes[i],
                                        .rows = 1,
                                        .wanted = 1,
                                        .logits = logits + i * b->model->config.vocab_size};
        }
        BB_TRY(bb_model_forward_parts(b->model, parts, n, err));
    }
    return BB_OK;
}

/* Times many sequences, one sequence and a prompt in alternation; ratios are medians over the repetitions. */
static bb_status measure_batch(bench *b, json_t *root, bb_error *err) {
    enum { TURNS = 3 };
    const int repeats = b->options->repeats * TURNS;
    bb_kv_cache caches[SEQUENCES] = {{0}};
    float *logits = malloc(SEQUENCES * (size_t)b->model->config.vocab_size * sizeof *logits);
    double *seconds = malloc((size_t)repeats * sizeof *seconds), *to_one = malloc((size_t)repeats * sizeof *to_one);
    double *to_prompt = malloc((size_t)repeats * sizeof *to_prompt);
    uint8_t prompt[PROMPT];
    bb_status status = BB_OK;
    if (!logits || !seconds || !to_one || !to_prompt) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto done;
    }
    for (int i = 0; i < PROMPT; i++) prompt[i] = text_at(i);
    for (int i = 0; i < SEQUENCES; i++)
        BB_TRY_GOTO(status, done, bb_kv_cache_open(b->model, TOKENS, b->options->kv_cache, &caches[i], err));
    for (int r = -1; r < repeats; r++) { /* the first one is not counted */
        double times[4] = {bb_clock_seconds()};
        BB_TRY_GOTO(status, done, decode_together(b, caches, logits, 1, err));
        times[1] = bb_clock_seconds();
        BB_TRY_GOTO(status, done, decode_together(b, caches, logits, SEQUENCES, err));
        times[2] = bb_clock_seconds();
        b->cache.length = 0;
        BB_TRY_GOTO(status, done, bb_model_forward_cached(b->model, &b->cache, prompt, PROMPT, false, logits, err));
        times[3] = bb_clock_seconds();
        if (r < 0) continue;
        seconds[r] = times[2] - times[1];
        to_one[r] = SEQUENCES * (times[1] - times[0]) / seconds[r];
        to_prompt[r] = (times[3] - times[2]) / PROMPT * SEQUENCES * TOKENS / seconds[r];
    }
    double t = median(seconds, repeats), ratio = median(to_one, repeats), share = median(to_prompt, repeats);
    json_object_set_new(root, "batch",
                        json_pack("{s:i, s:f, s:f, s:f}", "sequences", SEQUENCES, "bytes_per_s", SEQUENCES * TOKENS / t,
                                  "times_one", ratio, "percent_of_prefill", 100 * share));
done:
    for (int i = 0; i < SEQUENCES; i++)
        if (caches[i].kv.data) bb_kv_cache_close(&caches[i]);
    free(logits);
    free(seconds);
    free(to_one);
    free(to_prompt);
    return status;
}

BB_OPTIONS_DEFAULTS(bb_decode_bench_options, .shape = "S", .repeats = 3);

bb_status bb_bench_decode(bb_device *device, const bb_decode_bench_options *given, char **json, bb_error *err) {
    BB_REQUIRE("json", json);
    *json = NULL;
    BB_REQUIRE("device, options", device, given);
    BB_OPTIONS_READ(bb_decode_bench_options, o, given);
    BB_DEVICE_SCOPE(device);
    bench b = {.options = o};
    bb_config config;
    double load_seconds = 0;
    json_t *root = NULL;
    BB_TRY(bb_config_of_shape(o->shape, &config, NULL, err));
    if (o->repeats < 1 || o->repeats > MAX_REPEATS)
        return bb_fail(err, BB_ERR_ARGUMENT, "repeats %d: expected 1 to %d", o->repeats, MAX_REPEATS);
    if (o->kv_cache != BB_KV_INT6 && o->kv_cache != BB_KV_INT8 && o->kv_cache != BB_KV_F32)
        return bb_fail(err, BB_ERR_ARGUMENT, "kv_cache %d is unknown", (int)o->kv_cache);
    bb_status status;
    b.times = malloc((size_t)o->repeats * sizeof *b.times);
    b.logits = malloc((size_t)config.vocab_size * sizeof *b.logits);
    if (!b.times || !b.logits) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto done;
    }
    report_progress(&b, "measuring the peaks");
    device->ops->measure_peaks(device, &b.peaks); /* before the model is loaded: it allocates memory of its own */
    report_progress(&b, "drawing, writing and loading the model");
    BB_TRY_GOTO(status, done, load_cold(device, &config, &b.model, &load_seconds, err));
    BB_TRY_GOTO(status, done, bb_kv_cache_open(b.model, CAPACITY, o->kv_cache, &b.cache, err));
    b.weight_bytes = (double)b.model->quantized_bytes + 4.0 * config.vocab_size * config.d_model;
    static const char *const kv_names[] = {[BB_KV_INT6] = "int6", [BB_KV_INT8] = "int8", [BB_KV_F32] = "f32"};
    root = json_pack("{s:s, s:s, s:i, s:s, s:I, s:s, s:{s:f, s:f}}", "device", device->ops->name, "description",
                     bb_device_description(device), "threads", device->threads, "shape", o->shape, "parameters",
                     (json_int_t)b.model->table.total, "kv_cache", kv_names[o->kv_cache], "peaks", "int8", b.peaks.int8,
                     "read_gb", b.peaks.read_gb);
    BB_TRY_GOTO(status, done, measure_decode(&b, root, err));
    BB_TRY_GOTO(status, done, measure_prefill(&b, root, err));
    double needed = (double)b.model->quantized_bytes + 4.0 * (double)b.model->table.held + (double)b.cache.bytes;
    double resident = (double)bb_host_resident();
    json_object_set_new(root, "load_ms", json_real(load_seconds * 1e3));
    json_object_set_new(root, "memory",
                        json_pack("{s:f, s:f, s:f, s:f}", "weights_mb", (needed - (double)b.cache.bytes) * 1e-6, "kv_cache_mb",
                                  (double)b.cache.bytes * 1e-6, "resident_mb", resident * 1e-6, "resident_over_both",
                                  resident / needed));
    BB_TRY_GOTO(status, done, measure_batch(&b, root, err)); /* last, because its caches would count as resident memory */
    *json = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
done:
    json_decref(root);
    bb_kv_cache_close(&b.cache);
    bb_model_free(b.model);
    free(b.times);
    free(b.logits);
    return status;
}
