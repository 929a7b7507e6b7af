// SPDX-License-Identifier: MIT
#include "api.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* MAX_RESULTS: bytes with their candidates in one answer, whose JSON takes some 200 bytes for each. */
enum {
    MAX_RESULTS = 1 << 22,
    MAX_STOPS = 16,
    MAX_MESSAGES = 4096,
    DEFAULT_NEW_BYTES = 256,
    DEFAULT_CHAT_BYTES = 1024,
    MAX_TOP = 256
};

bool bb_api_fail(bb_api_error *error, int status, const char *param, const char *fmt, ...) {
    va_list args;
    *error = (bb_api_error){.status = status,
                            .type = status == 401   ? "authentication_error"
                                    : status == 429 ? "rate_limit_error"
                                    : status >= 500 ? "server_error"
                                                    : "invalid_request_error"};
    snprintf(error->param, sizeof error->param, "%s", param ? param : "");
    va_start(args, fmt);
    vsnprintf(error->message, sizeof error->message, fmt, args);
    va_end(args);
    return false;
}

char *bb_api_error_text(const bb_api_error *error) {
    json_t *json = json_pack("{s:{s:s,s:s,s:s?,s:i}}", "error", "message", error->message, "type", error->type, "param",
                             error->param[0] ? error->param : NULL, "code", error->status);
    if (!json) /* the message quotes bytes that are not UTF-8 */
        json = json_pack("{s:{s:s,s:s,s:n,s:i}}", "error", "message", "the request cannot be read", "type", error->type,
                         "param", "code", error->status);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return text;
}

void bb_request_free(bb_request *r) {
    if (!r) return;
    for (int i = 0; i < r->prompt_count; i++) free((void *)r->prompts[i].data);
    for (int i = 0; i < r->options.stop_count; i++) free((void *)r->stops[i].data);
    for (int i = 0; i < r->choice_count; i++) {
        free(r->choices[i].tokens);
        free(r->choices[i].top);
        free(r->choices[i].embedding);
    }
    free(r->prompts);
    free(r->stops);
    free(r->choices);
    free(r);
}

/* ---- fields ------------------------------------------------------------------------------------------------------------- */

static bool no_memory(bb_api_error *error) { return bb_api_fail(error, 500, NULL, "out of memory"); }

typedef struct reader {
    const json_t *body;
    bb_api_error *error;
} reader;

/* NULL: absent or null. */
static const json_t *field(const reader *r, const char *name) {
    const json_t *value = json_object_get(r->body, name);
    return json_is_null(value) ? NULL : value;
}

/* Leaves *out unchanged if the field is absent. above: min itself is not allowed. */
static bool take_number(const reader *r, const char *name, double min, bool above, double max, double *out) {
    const json_t *value = field(r, name);
    if (!value) return true;
    double number = json_number_value(value);
    if (!json_is_number(value) || !isfinite(number) || number < min || (above && number <= min) || number > max)
        return bb_api_fail(r->error, 400, name, "%s: expected a number %s %g and at most %g", name,
                           above ? "above" : "of at least", min, max);
    *out = number;
    return true;
}

static bool take_integer(const reader *r, const char *name, int64_t min, int64_t max, int64_t *out) {
    const json_t *value = field(r, name);
    if (!value) return true;
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max)
        return bb_api_fail(r->error, 400, name, "%s: expected a whole number from %lld to %lld", name, (long long)min,
                           (long long)max);
    *out = json_integer_value(value);
    return true;
}

static bool take_flag(const reader *r, const char *name, bool *out) {
    const json_t *value = field(r, name);
    if (!value) return true;
    if (!json_is_boolean(value)) return bb_api_fail(r->error, 400, name, "%s: expected true or false", name);
    *out = json_is_true(value);
    return true;
}

/* Refuses fields that would change the answer if they were supported, unless their value has no effect. */
static bool refuse(const reader *r, const char *const *names) {
    for (int i = 0; names[i]; i++) {
        const json_t *value = field(r, names[i]);
        bool empty = !value || json_is_false(value) || (json_is_number(value) && fabs(json_number_value(value)) <= 0) ||
                     (json_is_string(value) && json_string_length(value) == 0) ||
                     (json_is_object(value) && json_object_size(value) == 0) ||
                     (json_is_array(value) && json_array_size(value) == 0);
        if (!empty) return bb_api_fail(r->error, 400, names[i], "%s is not supported by this server", names[i]);
    }
    return true;
}

bool bb_api_bytes(const json_t *value, const char *param, bb_bytes *out, bb_api_error *error) {
    size_t size = json_is_string(value) ? json_string_length(value) : json_array_size(value);
    uint8_t *data = malloc(size + 1);
    if (!data) return no_memory(error);
    if (json_is_string(value)) memcpy(data, json_string_value(value), size);
    for (size_t i = 0; i < size && json_is_array(value); i++) {
        const json_t *byte = json_array_get(value, i);
        if (!json_is_integer(byte) || json_integer_value(byte) < 0 || json_integer_value(byte) > 255) {
            free(data);
            return bb_api_fail(error, 400, param, "%s: expected tokens that are bytes, 0 to 255, at index %zu", param, i);
        }
        data[i] = (uint8_t)json_integer_value(byte);
    }
    *out = (bb_bytes){data, size};
    return true;
}

/* Reads a string, an array of strings, an array of byte values, or an array of such arrays. */
static bool take_prompts(const reader *r, const char *name, bb_request *out) {
    const json_t *value = field(r, name);
    if (!value) return bb_api_fail(r->error, 400, name, "%s is missing", name);
    bool many = json_is_array(value) && !json_is_integer(json_array_get(value, 0)) && json_array_size(value) > 0;
    if (!json_is_string(value) && !json_is_array(value))
        return bb_api_fail(r->error, 400, name, "%s: expected a string or an array", name);
    size_t count = many ? json_array_size(value) : 1;
    if (count > 4096) return bb_api_fail(r->error, 400, name, "%s: too many texts", name);
    out->prompts = calloc(count, sizeof *out->prompts);
    if (!out->prompts) return no_memory(r->error);
    for (size_t i = 0; i < count; i++) {
        const json_t *one = many ? json_array_get(value, i) : value;
        if (!json_is_string(one) && !json_is_array(one))
            return bb_api_fail(r->error, 400, name, "%s: expected a string or an array of bytes at index %zu", name, i);
        if (!bb_api_bytes(one, name, &out->prompts[i], r->error)) return false;
        out->prompt_count++;
        out->prompt_bytes += (int64_t)out->prompts[i].size;
    }
    return true;
}

static bool add_stop(const reader *r, bb_request *out, const char *text, size_t size) {
    if (size == 0 || size > 4096) return bb_api_fail(r->error, 400, "stop", "stop: expected texts of 1 to 4096 bytes");
    bb_bytes *grown = realloc(out->stops, (size_t)(out->options.stop_count + 1) * sizeof *grown);
    if (!grown) return no_memory(r->error);
    out->stops = grown;
    char *copy = malloc(size);
    if (!copy) return no_memory(r->error);
    memcpy(copy, text, size);
    grown[out->options.stop_count++] = (bb_bytes){(const uint8_t *)copy, size};
    return true;
}

static bool take_stops(const reader *r, bb_request *out) {
    const json_t *value = field(r, "stop");
    size_t count = json_is_array(value) ? json_array_size(value) : value != NULL;
    if (count > MAX_STOPS) return bb_api_fail(r->error, 400, "stop", "stop: expected at most %d texts", MAX_STOPS);
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one)) return bb_api_fail(r->error, 400, "stop", "stop: expected a string or an array of strings");
        if (!add_stop(r, out, json_string_value(one), json_string_length(one))) return false;
    }
    return true;
}

static bool take_sampling(const reader *r, const bb_api_limits *limits, bb_request *out) {
    bb_generate_options *o = &out->options;
    int64_t max = out->kind == BB_REQUEST_CHAT ? DEFAULT_CHAT_BYTES : DEFAULT_NEW_BYTES, seed = -1, top_k = 0, n = 1;
    int64_t window = o->repetition_window;
    bool good = take_integer(r, "max_tokens", 0, limits->max_new_bytes, &max) &&
                take_integer(r, "max_completion_tokens", 0, limits->max_new_bytes, &max) &&
                take_number(r, "temperature", 0, false, 100, &o->temperature) &&
                take_number(r, "top_p", 0, true, 1, &o->top_p) && take_number(r, "min_p", 0, false, 1, &o->min_p) &&
                take_integer(r, "top_k", 0, 256, &top_k) &&
                take_number(r, "repetition_penalty", 0, true, 1000, &o->repetition_penalty) &&
                take_integer(r, "repetition_window", 1, 65536, &window) &&
                take_integer(r, "seed", INT64_MIN, INT64_MAX, &seed) && take_integer(r, "n", 1, limits->max_choices, &n) &&
                take_stops(r, out) && take_flag(r, "stream", &out->stream) && take_flag(r, "return_bytes", &out->return_bytes);
    if (!good) return false;
    o->max_new_bytes = max < limits->max_new_bytes ? max : limits->max_new_bytes;
    o->top_k = (int)top_k;
    o->repetition_window = (int)window;
    out->n = (int)n;
    o->seed = (uint64_t)seed;
    if (!field(r, "seed")) (void)getrandom(&o->seed, sizeof o->seed, 0);
    const json_t *stream_options = field(r, "stream_options");
    const reader inner = {stream_options, r->error};
    return take_flag(&inner, "include_usage", &out->include_usage);
}

/* ---- one function a kind ------------------------------------------------------------------------------------------------ */

/* Texts with logprobs or embeddings must fit the model's context. */
static bool check_fits(const reader *r, const char *name, const bb_api_limits *limits, const bb_request *out) {
    for (int i = 0; i < out->prompt_count; i++) {
        if (out->prompts[i].size == 0 && out->kind != BB_REQUEST_COMPLETION)
            return bb_api_fail(r->error, 400, name, "%s: text %d is empty", name, i);
        if (out->prompts[i].size > (size_t)limits->context_length)
            return bb_api_fail(r->error, 400, name, "%s: text %d has %zu bytes, but the model's context length is %d", name, i,
                               out->prompts[i].size, limits->context_length);
    }
    return true;
}

static bool take_completion(const reader *r, const bb_api_limits *limits, bb_request *out) {
    static const char *const unknown[] = {"suffix", "frequency_penalty", "presence_penalty", "logit_bias", NULL};
    int64_t top = 0, best_of = 1;
    if (!refuse(r, unknown) || !take_prompts(r, "prompt", out) || !take_sampling(r, limits, out) ||
        !take_flag(r, "echo", &out->echo) || !take_integer(r, "logprobs", 0, MAX_TOP, &top) ||
        !take_integer(r, "best_of", 1, 1, &best_of))
        return false;
    out->logprobs = field(r, "logprobs") != NULL;
    out->top = (int)top;
    return !out->echo || !out->logprobs || check_fits(r, "prompt", limits, out);
}

/* Writes the part of the template from `from` to `to`, with {role} replaced. */
static void put_piece(FILE *out, const char *from, const char *to, const char *role) {
    while (from < to) {
        if (strncmp(from, "{role}", 6) == 0 && from + 6 <= to) {
            fputs(role, out);
            from += 6;
        } else {
            fputc(*from++, out);
        }
    }
}

/* Content is a string, or an array of text parts. */
static bool put_content(const reader *r, FILE *out, const json_t *content) {
    if (json_is_string(content)) {
        fwrite(json_string_value(content), 1, json_string_length(content), out);
        return true;
    }
    const json_t *part;
    size_t i;
    if (!json_is_array(content)) return bb_api_fail(r->error, 400, "messages", "messages: expected content that is a string");
    json_array_foreach(content, i, part) {
        const json_t *text = json_object_get(part, "text");
        if (!json_is_string(text))
            return bb_api_fail(r->error, 400, "messages", "messages: only parts of type text are supported");
        fwrite(json_string_value(text), 1, json_string_length(text), out);
    }
    return true;
}

static bool put_messages(const reader *r, FILE *out, const json_t *messages, const char *chat_template) {
    const char *content = strstr(chat_template, "{content}"), *after = content + strlen("{content}");
    const json_t *message;
    size_t i;
    json_array_foreach(messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!role || strlen(role) > 64) return bb_api_fail(r->error, 400, "messages", "messages: message %zu has no role", i);
        put_piece(out, chat_template, content, role);
        if (!put_content(r, out, json_object_get(message, "content"))) return false;
        put_piece(out, after, after + strlen(after), role);
    }
    put_piece(out, chat_template, content, "assistant");
    return true;
}

/* Adds as a stop text the end of an answer and the beginning of a message by `role`, without the latter's trailing white
 * space. */
static bool add_role_stop(const reader *r, bb_request *out, const char *chat_template, const char *role) {
    char *text = NULL;
    size_t size = 0;
    const char *content = strstr(chat_template, "{content}"), *after = content + strlen("{content}");
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return no_memory(r->error);
    put_piece(memory, after, after + strlen(after), "assistant");
    put_piece(memory, chat_template, content, role);
    bool good = fclose(memory) == 0 || no_memory(r->error);
    while (good && size > 1 && strchr(" \n\t", text[size - 1])) size--;
    good = good && add_stop(r, out, text, size);
    free(text);
    return good;
}

static bool take_chat(const reader *r, const bb_api_limits *limits, bb_request *out) {
    static const char *const unknown[] = {"tools",      "functions", "frequency_penalty", "presence_penalty",
                                          "logit_bias", "audio",     "modalities",        NULL};
    static const char *const roles[] = {"user", "system", "assistant"};
    const json_t *messages = field(r, "messages"), *format = json_object_get(field(r, "response_format"), "type");
    int64_t top = 0;
    if (!refuse(r, unknown) || !take_sampling(r, limits, out) || !take_flag(r, "logprobs", &out->logprobs) ||
        !take_integer(r, "top_logprobs", 0, MAX_TOP, &top))
        return false;
    if (format && strcmp(json_string_value(format) ? json_string_value(format) : "", "text") != 0)
        return bb_api_fail(r->error, 400, "response_format", "response_format: only text is supported");
    if (!json_is_array(messages) || json_array_size(messages) < 1 || json_array_size(messages) > MAX_MESSAGES)
        return bb_api_fail(r->error, 400, "messages", "messages: expected an array of 1 to %d messages", MAX_MESSAGES);
    out->top = out->logprobs ? (int)top : 0;
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return no_memory(r->error);
    bool good = put_messages(r, memory, messages, limits->chat_template);
    if (fclose(memory) != 0 && good) good = no_memory(r->error);
    out->prompts = calloc(1, sizeof *out->prompts);
    if (!good || !out->prompts) {
        free(text);
        return good ? no_memory(r->error) : false;
    }
    out->prompts[0] = (bb_bytes){(const uint8_t *)text, size};
    out->prompt_count = 1;
    out->prompt_bytes = (int64_t)size;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!add_role_stop(r, out, limits->chat_template, roles[i])) return false;
    return true;
}

static bool take_embedding(const reader *r, const bb_api_limits *limits, bb_request *out) {
    static const char *const unknown[] = {"dimensions", NULL};
    const json_t *format = field(r, "encoding_format");
    const char *name = json_string_value(format);
    if (!refuse(r, unknown) || !take_prompts(r, "input", out) || !check_fits(r, "input", limits, out)) return false;
    out->base64 = name && strcmp(name, "base64") == 0;
    if (format && !out->base64 && (!name || strcmp(name, "float") != 0))
        return bb_api_fail(r->error, 400, "encoding_format", "encoding_format: expected float or base64");
    out->options.max_new_bytes = 0;
    return true;
}

static bool take_score(const reader *r, const bb_api_limits *limits, bb_request *out) {
    int64_t top = 0;
    if (!take_prompts(r, "input", out) || !check_fits(r, "input", limits, out) || !take_integer(r, "top", 0, MAX_TOP, &top))
        return false;
    out->top = (int)top;
    out->echo = true;
    out->options.max_new_bytes = 0;
    return true;
}

/* The answer must fit into memory. A single text without candidates is limited by max_new_bytes alone. */
static bool check_results(const bb_request *r, const bb_api_limits *limits, bb_api_error *error) {
    bool of_prompts = r->kind == BB_REQUEST_SCORE || (r->echo && r->logprobs);
    int64_t texts = r->prompt_count * (int64_t)r->n;
    int64_t bytes = texts * r->options.max_new_bytes + (of_prompts ? r->prompt_bytes * r->n : 0);
    int64_t most = limits->max_new_bytes > MAX_RESULTS ? limits->max_new_bytes : MAX_RESULTS;
    if (bytes * (1 + r->top) <= most) return true;
    return bb_api_fail(
        error, 400, r->options.max_new_bytes > 0 ? "max_tokens" : "input",
        "%lld texts have up to %lld bytes, each with %d candidates: %lld results; this server gives at most %lld "
        "in an answer",
        (long long)texts, (long long)bytes, r->top, (long long)(bytes * (1 + r->top)), (long long)most);
}

/* Completes a parsed request: creates the choices, each with its seed. */
static bool make_choices(bb_request *r, const bb_api_limits *limits, bb_api_error *error) {
    if (r->prompt_count * (int64_t)r->n > limits->max_choices)
        return bb_api_fail(error, 400, "n", "%lld texts requested; this server allows %d per request",
                           (long long)r->prompt_count * r->n, limits->max_choices);
    if (!check_results(r, limits, error)) return false;
    r->choice_count = r->running = r->prompt_count * r->n;
    r->choices = calloc((size_t)r->choice_count, sizeof *r->choices);
    if (!r->choices) {
        r->choice_count = 0;
        return no_memory(error);
    }
    for (int i = 0; i < r->choice_count; i++)
        r->choices[i] = (bb_choice){.request = r,
                                    .prompt = r->prompts[i / r->n],
                                    .seed = r->options.seed + (uint64_t)(i % r->n),
                                    .finish = BB_FINISH_CALLER};
    r->options.stops = r->stops;
    return true;
}

static void make_id(bb_request *r) {
    static const char *const prefixes[] = {[BB_REQUEST_COMPLETION] = "cmpl-",
                                           [BB_REQUEST_CHAT] = "chatcmpl-",
                                           [BB_REQUEST_EMBEDDING] = "embd-",
                                           [BB_REQUEST_SCORE] = "score-"};
    uint64_t number[2] = {0};
    (void)getrandom(number, sizeof number, 0);
    snprintf(r->id, sizeof r->id, "%s%012llx%012llx", prefixes[r->kind], (unsigned long long)(number[0] >> 16),
             (unsigned long long)(number[1] >> 16));
    r->created = (int64_t)time(NULL);
}

bool bb_api_parse(bb_request_kind kind, const char *body, size_t size, const bb_api_limits *limits, bb_request **out,
                  bb_api_error *error) {
    json_error_t at;
    *out = NULL;
    json_t *json = json_loadb(body, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &at);
    if (!json) return bb_api_fail(error, 400, NULL, "the body is not JSON: byte %d: %.200s", at.position, at.text);
    bb_request *r = json_is_object(json) ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        bool object = json_is_object(json);
        json_decref(json);
        return object ? no_memory(error) : bb_api_fail(error, 400, NULL, "the body is not a JSON object");
    }
    r->kind = kind;
    r->n = 1;
    bb_generate_options_default(&r->options);
    r->options.temperature = 1;
    make_id(r);
    const reader reading = {json, error};
    bool good = false;
    switch (kind) {
    case BB_REQUEST_COMPLETION: good = take_completion(&reading, limits, r); break;
    case BB_REQUEST_CHAT: good = take_chat(&reading, limits, r); break;
    case BB_REQUEST_EMBEDDING: good = take_embedding(&reading, limits, r); break;
    case BB_REQUEST_SCORE: good = take_score(&reading, limits, r); break;
    }
    good = good && make_choices(r, limits, error);
    json_decref(json);
    if (!good) {
        bb_request_free(r);
        return false;
    }
    *out = r;
    return true;
}
