// SPDX-License-Identifier: MIT
/* What bitbyte generate says of a generation; and the texts that it is given. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

static double rate(int64_t bytes, double seconds) { return seconds > 0 ? (double)bytes / seconds : 0; }

/* The text, with U+FFFD for what is no UTF-8; then also every byte of it in hexadecimal. */
static void add_text(json_t *object, const bb_sample *s) {
    json_t *text = json_stringn((const char *)s->text, s->length); /* NULL where it is no UTF-8 */
    if (text) {
        json_object_set_new(object, "text", text);
        return;
    }
    char *shown = NULL, *hex = malloc(2 * s->length + 1);
    size_t size = 0;
    FILE *memory = open_memstream(&shown, &size);
    if (memory && hex) {
        bb_utf8_out out;
        bb_utf8_out_open(&out, memory, false);
        out.keep_controls = true;
        for (size_t i = 0; i < s->length; i++) {
            bb_utf8_out_byte(&out, s->text[i]);
            snprintf(hex + 2 * i, 3, "%02x", s->text[i]);
        }
        bb_utf8_out_end(&out);
    }
    if (memory) fclose(memory);
    json_object_set_new(object, "text", shown ? json_stringn(shown, size) : NULL);
    json_object_set_new(object, "hex", hex ? json_stringn(hex, 2 * s->length) : NULL);
    free(shown);
    free(hex);
}

static json_t *sample_json(const bb_generate_report *r, const bb_sample *s) {
    const bb_generate_metrics *m = &s->metrics;
    json_t *object = json_pack("{s:I}", "seed", (json_int_t)s->seed);
    if (!object) return NULL;
    if (r->with_text) add_text(object, s);
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
                     json_string_nocheck(r->model), "seed", (json_int_t)o->seed, "temperature", o->temperature, "top_k",
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

bb_status bb_generate_read_all(const char *path, uint8_t **bytes, size_t *length, bb_error *err) {
    bool standard_input = strcmp(path, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(path, "rb");
    size_t room = 0;
    *bytes = NULL;
    *length = 0;
    err->code = BB_OK;
    while (file && !feof(file) && !ferror(file)) {
        if (*length == room) {
            room = room ? 2 * room : 65536;
            uint8_t *larger = realloc(*bytes, room);
            if (!larger) {
                err->code = BB_ERR_MEMORY;
                snprintf(err->message, sizeof err->message, "%s: out of memory for the prompt", path);
                break;
            }
            *bytes = larger;
        }
        *length += fread(*bytes + *length, 1, room - *length, file);
    }
    if (!file || ferror(file)) {
        err->code = BB_ERR_IO;
        snprintf(err->message, sizeof err->message, "%s: cannot read the prompt: %s", standard_input ? "standard input" : path,
                 strerror(errno));
    }
    if (file && !standard_input) fclose(file);
    return err->code;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bb_status bb_generate_unescape(const char *option, const char *text, uint8_t *out, size_t *length, bb_error *err) {
    static const char letters[] = "nrt\\", values[] = "\n\r\t\\";
    size_t n = 0;
    for (const char *at = text; *at; at++) {
        const char *letter = *at == '\\' && at[1] ? strchr(letters, at[1]) : NULL;
        if (*at != '\\') {
            out[n++] = (uint8_t)*at;
        } else if (letter) {
            out[n++] = (uint8_t)values[letter - letters];
            at++;
        } else if (at[1] == 'x' && hex_digit(at[2]) >= 0 && hex_digit(at[3]) >= 0) {
            out[n++] = (uint8_t)(16 * hex_digit(at[2]) + hex_digit(at[3]));
            at += 3;
        } else {
            err->code = BB_ERR_ARGUMENT;
            snprintf(err->message, sizeof err->message,
                     "--%s: unknown escape '%.2s' in '%s'; known are \\n, \\r, \\t, \\\\ and \\xHH (two hexadecimal digits)",
                     option, at, text);
            return err->code;
        }
    }
    *length = n;
    return BB_OK;
}
