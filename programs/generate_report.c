// SPDX-License-Identifier: MIT
/* Reports of bitbyte generate, as JSON or as text. */
#include "generate_report.h"

#include "json_out.h"
#include "progress.h"

static double rate(int64_t bytes, double seconds) { return seconds > 0 ? (double)bytes / seconds : 0; }

static json_t *sample_json(const bb_generate_report *r, const bb_sample *s) {
    const bb_generate_metrics *m = &s->metrics;
    json_t *object = json_pack("{s:I}", "seed", (json_int_t)s->seed);
    if (!object) return NULL;
    if (r->with_text) bb_json_add_bytes(object, s->text, s->length);
    json_t *rest = json_pack(
        "{s:I,s:I,s:i,s:I,s:f,s:f,s:f,s:f,s:f,s:I,s:I,s:I,s:I}", "text_bytes", (json_int_t)s->length, "new_bytes",
        (json_int_t)m->new_bytes, "stop", m->stop, "context_restarts", (json_int_t)m->context_restarts, "first_byte_seconds",
        m->first_byte_seconds, "decode_seconds", m->decode_seconds, "bytes_per_s", rate(m->new_bytes, m->decode_seconds),
        "mean_logprob", m->mean_logprob, "bpb", bb_bits_per_byte(-m->mean_logprob), "passes", (json_int_t)m->passes, "drafted",
        (json_int_t)m->drafted, "accepted", (json_int_t)m->accepted, "invalid_utf8", (json_int_t)s->invalid_utf8);
    json_object_update(object, rest);
    json_decref(rest);
    return object;
}

json_t *bb_generate_report_json(const bb_generate_report *r) {
    const bb_generate_options *o = r->options;
    bb_generate_metrics all = {.first_byte_seconds = r->count ? r->samples[0].metrics.first_byte_seconds : 0};
    double logprobs = 0;
    int64_t invalid = 0;
    json_t *samples = json_array();
    for (int i = 0; i < r->count; i++) {
        const bb_generate_metrics *m = &r->samples[i].metrics;
        all.new_bytes += m->new_bytes;
        all.context_restarts += m->context_restarts;
        all.passes += m->passes;
        all.drafted += m->drafted;
        all.accepted += m->accepted;
        all.decode_seconds += m->decode_seconds;
        logprobs += m->mean_logprob * (double)m->new_bytes;
        invalid += r->samples[i].invalid_utf8;
        json_array_append_new(samples, sample_json(r, &r->samples[i]));
    }
    double mean = all.new_bytes ? logprobs / (double)all.new_bytes : 0;
    return json_pack("{s:o,s:I,s:f,s:i,s:f,s:f,s:f,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:o}", "model",
                     bb_json_path_string(r->model), "seed", (json_int_t)o->seed, "temperature", o->temperature, "top_k",
                     o->top_k, "top_p", o->top_p, "min_p", o->min_p, "repetition_penalty", o->repetition_penalty,
                     "repetition_window", o->repetition_window, "prompt_bytes", (json_int_t)r->prompt_bytes, "new_bytes",
                     (json_int_t)all.new_bytes, "context_restarts", (json_int_t)all.context_restarts, "passes",
                     (json_int_t)all.passes, "drafted", (json_int_t)all.drafted, "accepted", (json_int_t)all.accepted,
                     "prompt_seconds", r->prompt_seconds, "decode_seconds", all.decode_seconds, "first_byte_seconds",
                     all.first_byte_seconds, "bytes_per_s", rate(all.new_bytes, all.decode_seconds), "mean_logprob", mean,
                     "bpb", bb_bits_per_byte(-mean), "invalid_utf8", (json_int_t)invalid, "samples", samples);
}

void bb_generate_report_show(const bb_sample *s, FILE *out) {
    const bb_generate_metrics *m = &s->metrics;
    fprintf(out,
            "prompt    %lld bytes in %s\nfirst     byte after %s\nwrote     %lld bytes in %s: %.1f bytes/s\n"
            "likely    %.4f bits per byte by the model itself\nrestarts  %lld (full context, older half dropped)\n"
            "guessed   %lld bytes ahead, %lld of them right\ninvalid   %lld places that are not UTF-8\n",
            (long long)m->prompt_bytes, bb_text_duration(m->prompt_seconds).s, bb_text_duration(m->first_byte_seconds).s,
            (long long)m->new_bytes, bb_text_duration(m->decode_seconds).s, rate(m->new_bytes, m->decode_seconds),
            bb_bits_per_byte(-m->mean_logprob), (long long)m->context_restarts, (long long)m->drafted, (long long)m->accepted,
            (long long)s->invalid_utf8);
}
