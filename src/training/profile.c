// SPDX-License-Identifier: MIT
#include "training/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/json.h"

double bb_profile_peak(const bb_peaks *peaks, bb_limit limit, const char **name) {
    const struct {
        const char *name;
        double peak;
    } wider[] = {{"int8", peaks->int8}, {"bf16", peaks->bf16}, {"f32", peaks->f32}};
    *name = NULL;
    if (limit == BB_LIMIT_NONE) return 0;
    for (int i = limit == BB_LIMIT_INT8 ? 0 : limit == BB_LIMIT_BF16 ? 1 : 2; i < 3; i++) {
        if (wider[i].peak <= 0) continue;
        *name = wider[i].name;
        return wider[i].peak;
    }
    return 0;
}

double bb_profile_limit_seconds(const bb_timings *timings) {
    double seconds = 0;
    for (int i = 0; i < timings->count; i++) {
        const char *name;
        double peak = bb_profile_peak(&timings->peaks, timings->entry[i].limit, &name);
        if (peak > 0) seconds += timings->entry[i].work / (peak * 1e9);
    }
    return seconds;
}

/* Names such as "linear_forward qkv"; layers of equal shape share an entry: "linear_forward o, down". */
static void name_entry(const bb_timed_entry *e, const bb_config *c, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "%s", e->name);
    if (!e->n) return;
    int64_t C = c->d_model, F = c->d_ff, D = C / c->n_head;
    const struct {
        const char *name;
        int64_t n, k;
    } layers[] = {{"qkv", C + 2 * c->n_kv_head * D, C}, {"o", C, C}, {"gate_up", 2 * F, C}, {"down", C, F}};
    const char *join = " ";
    for (size_t i = 0; i < sizeof layers / sizeof *layers && used < size; i++) {
        if (layers[i].n != e->n || layers[i].k != e->k) continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s", join, layers[i].name);
        join = ", ";
    }
}

json_t *bb_profile_operations(const bb_timings *timings, const bb_config *config, double seconds, const char *share) {
    json_t *list = json_array();
    for (int i = 0; i < timings->count; i++) {
        const bb_timed_entry *e = &timings->entry[i];
        char name[64];
        const char *peak_name;
        name_entry(e, config, name, sizeof name);
        json_t *one =
            json_pack("{s:s, s:I, s:f, s:f, s:f}", "name", name, "calls", (json_int_t)e->calls, "ms",
                      e->seconds / (double)e->calls * 1e3, "total_ms", e->seconds * 1e3, share, 100 * e->seconds / seconds);
        double peak = bb_profile_peak(&timings->peaks, e->limit, &peak_name);
        if (peak > 0) {
            double gops = e->work / e->seconds * 1e-9;
            json_object_set_new(one, "gops", json_real(gops));
            json_object_set_new(one, "peak", json_string(peak_name));
            json_object_set_new(one, "percent_of_peak", json_real(100 * gops / peak));
        }
        json_array_append_new(list, one);
    }
    return list;
}

json_t *bb_profile_shares(const bb_timings *timings, double seconds) {
    double gemm = 0, attention = 0, rest = 0;
    for (int i = 0; i < timings->count; i++) {
        const bb_timed_entry *e = &timings->entry[i];
        *(strncmp(e->name, "attention", 9) == 0 ? &attention : e->limit != BB_LIMIT_NONE ? &gemm : &rest) += e->seconds;
    }
    return json_pack("{s:f, s:f, s:f}", "gemm", 100 * gemm / seconds, "attention", 100 * attention / seconds, "rest",
                     100 * rest / seconds);
}

bb_status bb_profile_open(bb_device *device, bb_device **out, bb_error *err) {
    bb_peaks peaks;
    BB_REQUIRE("device, out", device, out);
    BB_TRY(bb_timed_open(device, out, err));
    (*out)->ops->measure_peaks(*out, &peaks); /* the timed device stores them */
    bb_timed_start(*out);
    return BB_OK;
}

bb_status bb_profile_start(bb_device *profiled, bb_error *err) {
    BB_REQUIRE("profiled", profiled);
    if (!bb_timed_timings(profiled))
        return bb_fail(err, BB_ERR_ARGUMENT, "device \"%s\" is not profiled: see bb_profile_open", bb_device_name(profiled));
    bb_timed_start(profiled);
    return BB_OK;
}

static int longest_first(const void *a, const void *b) {
    double x = ((const bb_timed_entry *)a)->seconds, y = ((const bb_timed_entry *)b)->seconds;
    return (x < y) - (x > y);
}

bb_status bb_profile_report(const bb_device *profiled, const bb_config *config, char **json, bb_error *err) {
    BB_REQUIRE("profiled, config, json", profiled, config, json);
    *json = NULL;
    const bb_timings *timings = bb_timed_timings(profiled);
    if (!timings)
        return bb_fail(err, BB_ERR_ARGUMENT, "device \"%s\" is not profiled: see bb_profile_open", bb_device_name(profiled));
    double seconds = bb_clock_seconds() - timings->started, timed = 0;
    bb_timings *sorted = malloc(sizeof *sorted);
    if (!sorted) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    *sorted = *timings;
    qsort(sorted->entry, (size_t)sorted->count, sizeof *sorted->entry, longest_first);
    for (int i = 0; i < sorted->count; i++) timed += sorted->entry[i].seconds;
    json_t *shares = bb_profile_shares(sorted, seconds);
    json_object_set_new(shares, "outside", json_real(100 * (seconds - timed) / seconds));
    json_t *root = json_pack("{s:f, s:{s:f, s:f, s:f, s:f}, s:o, s:o}", "seconds", seconds, "peaks", "f32", sorted->peaks.f32,
                             "bf16", sorted->peaks.bf16, "int8", sorted->peaks.int8, "read_gb", sorted->peaks.read_gb,
                             "operations", bb_profile_operations(sorted, config, seconds, "percent_of_time"), "shares", shares);
    free(sorted);
    *json = bb_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    return *json ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory");
}
