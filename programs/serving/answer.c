// SPDX-License-Identifier: MIT
#include "answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../json_out.h"

char *bb_base64(const uint8_t *data, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((size + 2) / 3 * 4 + 1), *at = text;
    for (size_t i = 0; text && i < size; i += 3) {
        unsigned bits =
            (unsigned)data[i] << 16 | (i + 1 < size ? (unsigned)data[i + 1] << 8 : 0) | (i + 2 < size ? data[i + 2] : 0u);
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *at++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    if (text) *at = '\0';
    return text;
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------- */

/* Writes a byte as the text of a token: itself, or OpenAI's notation for a byte that is not a whole character. */
static void token_text(uint8_t byte, char out[16]) {
    if (byte < 0x80)
        snprintf(out, 16, "%c", byte);
    else
        snprintf(out, 16, "bytes:\\x%02x", byte);
}

static json_t *token_json(uint8_t byte) {
    char text[16];
    token_text(byte, text);
    return byte == 0 ? json_stringn("", 1) : json_string(text);
}

static json_t *logprob_json(double logprob) { return isfinite(logprob) ? json_real(logprob) : json_null(); }

/* A range of a choice's tokens. */
typedef struct span {
    const bb_choice *choice;
    size_t from, to;
} span;

static bool shown(const bb_choice *c, const bb_token *token) { return !token->prompt || c->request->echo; }

static const bb_candidate *top_of(const bb_choice *c, size_t i) { return c->top + i * (size_t)c->request->top; }

/* For /v1/completions: parallel arrays. */
static json_t *completion_logprobs(const span *s, size_t offset) {
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array(), *offsets = json_array();
    for (size_t i = s->from; i < s->to; i++) {
        const bb_token *t = &s->choice->tokens[i];
        if (!shown(s->choice, t)) continue;
        json_t *top = json_object();
        for (int k = 0; k < t->top_count; k++) {
            char text[16];
            const bb_candidate *candidate = top_of(s->choice, i) + k;
            token_text(candidate->byte, text);
            json_object_set_new(top, text, json_real(candidate->logprob));
        }
        json_array_append_new(tokens, token_json(t->byte));
        json_array_append_new(logprobs, logprob_json(t->logprob));
        json_array_append_new(tops, top);
        json_array_append_new(offsets, json_integer((json_int_t)offset++));
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", tops, "text_offset",
                     offsets);
}

static json_t *chat_token(uint8_t byte, double logprob) {
    return json_pack("{s:o,s:o,s:[i]}", "token", token_json(byte), "logprob", logprob_json(logprob), "bytes", (int)byte);
}

static json_t *chat_logprobs(const span *s) {
    json_t *content = json_array();
    for (size_t i = s->from; i < s->to; i++) {
        const bb_token *t = &s->choice->tokens[i];
        if (t->prompt) continue;
        json_t *entry = chat_token(t->byte, t->logprob), *top = json_array();
        for (int k = 0; k < t->top_count; k++)
            json_array_append_new(top, chat_token(top_of(s->choice, i)[k].byte, top_of(s->choice, i)[k].logprob));
        json_object_set_new(entry, "top_logprobs", top);
        json_array_append_new(content, entry);
    }
    return json_pack("{s:o}", "content", content);
}

/* return_bytes: every byte as [byte, logprob, [[byte, logprob], …]]. */
static json_t *raw_bytes(const span *s) {
    json_t *bytes = json_array();
    for (size_t i = s->from; i < s->to; i++) {
        const bb_token *t = &s->choice->tokens[i];
        json_t *top = json_array();
        if (!shown(s->choice, t)) {
            json_decref(top);
            continue;
        }
        for (int k = 0; k < t->top_count; k++)
            json_array_append_new(top, json_pack("[if]", (int)top_of(s->choice, i)[k].byte, top_of(s->choice, i)[k].logprob));
        json_array_append_new(bytes, json_pack("[ioo]", (int)t->byte, logprob_json(t->logprob), top));
    }
    return bytes;
}

static void put_replacements(FILE *out, int count) {
    for (int i = 0; i < count; i++) fputs(BB_UTF8_REPLACEMENT, out);
}

static void put_byte(FILE *out, bb_utf8 *utf8, uint8_t byte) {
    bb_utf8_result result = bb_utf8_byte(utf8, byte);
    put_replacements(out, result.invalid);
    fwrite(result.character, 1, (size_t)result.size, out);
}

/* Returns a memory stream's text as JSON, and frees it. */
static json_t *text_json(FILE *memory, char **text, const size_t *size) {
    json_t *json = fclose(memory) == 0 ? json_stringn(*text, *size) : NULL;
    free(*text);
    return json;
}

/* ---- whole -------------------------------------------------------------------------------------------------------------- */

static const char *finish_text(bb_finish finish) { return finish == BB_FINISH_STOP ? "stop" : "length"; }

/* Returns the text of a choice; with echo, and if the prompt is not among the tokens, preceded by the prompt. */
static json_t *choice_text(const bb_choice *c) {
    char *text = NULL;
    size_t size = 0;
    bb_utf8 utf8 = {.have = 0};
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return NULL;
    bool prompt_is_there = c->count > 0 && c->tokens[0].prompt;
    for (size_t i = 0; c->request->echo && !prompt_is_there && i < c->prompt.size; i++)
        put_byte(memory, &utf8, c->prompt.data[i]);
    for (size_t i = 0; i < c->count; i++)
        if (shown(c, &c->tokens[i])) put_byte(memory, &utf8, c->tokens[i].byte);
    put_replacements(memory, bb_utf8_end(&utf8));
    return text_json(memory, &text, &size);
}

static void add_bytes(json_t *choice, const span *s) {
    if (!s->choice->request->return_bytes) return;
    uint8_t *bytes = calloc(s->choice->count + 1, 1);
    size_t size = 0;
    for (size_t i = s->from; bytes && i < s->to; i++)
        if (shown(s->choice, &s->choice->tokens[i])) bytes[size++] = s->choice->tokens[i].byte;
    char *base64 = bytes ? bb_base64(bytes, size) : NULL;
    json_object_set_new(choice, "bytes", raw_bytes(s));
    json_object_set_new(choice, "bytes_base64", json_string(base64));
    free(base64);
    free(bytes);
}

static json_t *choice_json(const bb_choice *c, int index) {
    const bb_request *r = c->request;
    const span all = {c, 0, c->count};
    json_t *json;
    if (r->kind == BB_REQUEST_CHAT)
        json = json_pack("{s:i,s:{s:s,s:o},s:o,s:s}", "index", index, "message", "role", "assistant", "content", choice_text(c),
                         "logprobs", r->logprobs ? chat_logprobs(&all) : json_null(), "finish_reason", finish_text(c->finish));
    else
        json = json_pack("{s:i,s:o,s:o,s:s}", "index", index, "text", choice_text(c), "logprobs",
                         r->logprobs ? completion_logprobs(&all, 0) : json_null(), "finish_reason", finish_text(c->finish));
    if (json) add_bytes(json, &all);
    return json;
}

static json_t *usage_json(const bb_request *r) {
    int64_t completion = 0;
    for (int i = 0; i < r->choice_count; i++)
        for (size_t k = 0; k < r->choices[i].count; k++) completion += !r->choices[i].tokens[k].prompt;
    return json_pack("{s:I,s:I,s:I}", "prompt_tokens", (json_int_t)r->prompt_bytes, "completion_tokens", (json_int_t)completion,
                     "total_tokens", (json_int_t)(r->prompt_bytes + completion));
}

static json_t *generation_json(const bb_request *r, const char *model_name) {
    json_t *choices = json_array();
    for (int i = 0; i < r->choice_count; i++) json_array_append_new(choices, choice_json(&r->choices[i], i));
    return json_pack("{s:s,s:s,s:I,s:s,s:o,s:o}", "id", r->id, "object",
                     r->kind == BB_REQUEST_CHAT ? "chat.completion" : "text_completion", "created", (json_int_t)r->created,
                     "model", model_name, "choices", choices, "usage", usage_json(r));
}

/* Normalized to length 1. base64: little-endian f32. */
static json_t *embedding_vector(const bb_choice *c, bool base64) {
    const float *values = c->embedding;
    const size_t n = c->embedding_size;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)values[i] * (double)values[i];
    double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    if (!base64) {
        json_t *array = json_array();
        for (size_t i = 0; i < n; i++) json_array_append_new(array, json_real((double)values[i] * scale));
        return array;
    }
    uint8_t *bytes = calloc(n + 1, 4);
    for (size_t i = 0; bytes && i < n; i++) {
        float value = (float)((double)values[i] * scale);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        for (size_t k = 0; k < 4; k++) bytes[4 * i + k] = (uint8_t)(bits >> 8 * k);
    }
    char *text = bytes ? bb_base64(bytes, n * 4) : NULL;
    json_t *json = json_string(text);
    free(text);
    free(bytes);
    return json;
}

static json_t *embedding_json(const bb_request *r, const char *model_name) {
    json_t *data = json_array();
    for (int i = 0; i < r->choice_count; i++)
        if (r->choices[i].embedding)
            json_array_append_new(data, json_pack("{s:s,s:i,s:o}", "object", "embedding", "index", i, "embedding",
                                                  embedding_vector(&r->choices[i], r->base64)));
    return json_pack("{s:s,s:o,s:s,s:{s:I,s:I}}", "object", "list", "data", data, "model", model_name, "usage", "prompt_tokens",
                     (json_int_t)r->prompt_bytes, "total_tokens", (json_int_t)r->prompt_bytes);
}

/* Bits of each byte; the first one has no prediction. */
static json_t *score_json(const bb_request *r, const char *model_name) {
    json_t *data = json_array();
    for (int i = 0; i < r->choice_count; i++) {
        const bb_choice *c = &r->choices[i];
        const span all = {c, 0, c->count};
        json_t *bits = json_array();
        double sum = 0;
        int64_t scored = 0;
        for (size_t k = 0; k < c->count; k++) {
            double value = -c->tokens[k].logprob / log(2);
            json_array_append_new(bits, isfinite(value) ? json_real(value) : json_null());
            if (isfinite(value)) sum += value;
            scored += isfinite(value);
        }
        json_t *score =
            json_pack("{s:i,s:I,s:I,s:f,s:o,s:o}", "index", i, "bytes", (json_int_t)c->count, "scored", (json_int_t)scored,
                      "total_bits", sum, "bits_per_byte", scored ? json_real(sum / (double)scored) : json_null(), "bits", bits);
        if (r->top > 0) json_object_set_new(score, "candidates", raw_bytes(&all));
        json_array_append_new(data, score);
    }
    return json_pack("{s:s,s:o,s:s}", "object", "list", "data", data, "model", model_name);
}

/* Returns the error of the first choice that failed, or NULL. */
static const char *failure_of(const bb_request *r) {
    for (int i = 0; i < r->choice_count; i++)
        if (r->choices[i].error[0]) return r->choices[i].error;
    return NULL;
}

static bool find_failure(const bb_request *r, bb_api_error *error) {
    const char *failure = failure_of(r);
    if (r->timed_out) return !bb_api_fail(error, 504, NULL, "the request took longer than this server allows");
    if (r->draining_cut) return !bb_api_fail(error, 503, NULL, "the server is shutting down");
    return failure && !bb_api_fail(error, 500, NULL, "%s", failure);
}

char *bb_answer_whole(const bb_request *r, const char *model_name, bb_api_error *error) {
    json_t *json = NULL;
    if (find_failure(r, error)) return NULL;
    switch (r->kind) {
    case BB_REQUEST_COMPLETION:
    case BB_REQUEST_CHAT: json = generation_json(r, model_name); break;
    case BB_REQUEST_EMBEDDING: json = embedding_json(r, model_name); break;
    case BB_REQUEST_SCORE: json = score_json(r, model_name); break;
    }
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text) (void)bb_api_fail(error, 500, NULL, "out of memory");
    return text;
}

/* ---- events ------------------------------------------------------------------------------------------------------------- */

static void put_event(FILE *out, json_t *json) {
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) fprintf(out, "data: %s\n\n", text);
    free(text);
    json_decref(json);
}

/* choices: an array; usage: NULL, or an object. */
static json_t *chunk_json(const bb_request *r, const char *model_name, json_t *choices, json_t *usage) {
    return json_pack("{s:s,s:s,s:I,s:s,s:o,s:o*}", "id", r->id, "object",
                     r->kind == BB_REQUEST_CHAT ? "chat.completion.chunk" : "text_completion", "created",
                     (json_int_t)r->created, "model", model_name, "choices", choices, "usage", usage);
}

/* text: JSON; s: its tokens. finish: NULL while the choice is running. */
static void put_piece(FILE *out, const char *model_name, json_t *text, const span *s, const char *finish) {
    const bb_choice *c = s->choice;
    const bb_request *r = c->request;
    json_t *reason = finish ? json_string(finish) : json_null(), *choice;
    int index = (int)(c - r->choices);
    bool listed = r->logprobs && s->to > s->from;
    if (r->kind == BB_REQUEST_CHAT) {
        json_t *delta = json_object();
        if (!finish) json_object_set(delta, "content", text);
        if (!c->begun) json_object_set_new(delta, "role", json_string("assistant"));
        choice = json_pack("{s:i,s:o,s:o,s:o}", "index", index, "delta", delta, "logprobs",
                           listed ? chat_logprobs(s) : json_null(), "finish_reason", reason);
        json_decref(text);
    } else {
        choice = json_pack("{s:i,s:o,s:o,s:o}", "index", index, "text", text, "logprobs",
                           listed ? completion_logprobs(s, s->from) : json_null(), "finish_reason", reason);
    }
    if (choice && r->return_bytes && s->to > s->from) json_object_set_new(choice, "bytes", raw_bytes(s));
    put_event(out, chunk_json(r, model_name, json_pack("[o]", choice), NULL));
}

static void put_choice(bb_choice *c, const char *model_name, FILE *out) {
    const bb_request *r = c->request;
    char *text = NULL;
    size_t size = 0;
    if (c->closed || (c->sent == c->count && !c->ended && c->begun)) return;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return;
    bool prompt_is_there = c->count > 0 && c->tokens[0].prompt;
    for (size_t i = 0; !c->echoed && r->echo && !r->logprobs && !prompt_is_there && i < c->prompt.size; i++)
        put_byte(memory, &c->utf8, c->prompt.data[i]);
    c->echoed = true;
    const span s = {c, c->sent, c->count};
    for (size_t i = s.from; i < s.to; i++)
        if (shown(c, &c->tokens[i])) put_byte(memory, &c->utf8, c->tokens[i].byte);
    if (c->ended) put_replacements(memory, bb_utf8_end(&c->utf8));
    fflush(memory);
    bool anything =
        size > 0 || (s.to > s.from && (r->return_bytes || r->logprobs)) || (!c->begun && r->kind == BB_REQUEST_CHAT);
    json_t *piece = text_json(memory, &text, &size);
    if (anything) {
        put_piece(out, model_name, piece, &s, NULL);
        c->begun = true;
    } else {
        json_decref(piece);
    }
    c->sent = s.to;
    if (!c->ended) return;
    const span none = {c, c->count, c->count};
    c->begun = c->closed = true;
    put_piece(out, model_name, json_string(""), &none, finish_text(c->finish));
}

void bb_answer_events(bb_request *r, const char *model_name, FILE *out) {
    bb_api_error error;
    if (r->running == 0 && find_failure(r, &error)) {
        char *text = bb_api_error_text(&error);
        if (text) fprintf(out, "data: %s\n\n", text);
        free(text);
        r->done_sent = true;
        return;
    }
    for (int i = 0; i < r->choice_count; i++) put_choice(&r->choices[i], model_name, out);
    if (r->running > 0) return;
    if (r->include_usage) put_event(out, chunk_json(r, model_name, json_array(), usage_json(r)));
    fputs("data: [DONE]\n\n", out);
    r->done_sent = true;
}
