// SPDX-License-Identifier: MIT
#include "generate_prompts.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "json_out.h"
#include "ordered_batch.h"
#include "progress.h"
#include "signals.h"

typedef struct prompt_run {
    const bb_prompt_file *args;
    FILE *in, *out;
    char *line;
    size_t line_capacity;
    int read_errno;          /* why the input ended, unless it was its end */
    int64_t lines, skip;     /* lines read; lines whose results the output already has */
    int64_t total, finished; /* total lines of the file, 0: unknown; results written */
    double bytes;
    json_t *json; /* the parsed line read last; the item's request points into it */
    uint8_t *prompt;
    bb_bytes *stops;
    int64_t failures;
    bb_progress progress;
} prompt_run;

/* What is kept of an item's line. */
typedef struct prompt_data {
    json_t *id;
    int64_t line;
} prompt_data;

typedef enum value_kind { VALUE_INT, VALUE_INT64, VALUE_DOUBLE } value_kind;
static const struct {
    const char *name;
    value_kind kind;
    size_t offset;
} fields[] = {{"max_new_bytes", VALUE_INT64, offsetof(bb_generate_options, max_new_bytes)},
              {"repetition_penalty", VALUE_DOUBLE, offsetof(bb_generate_options, repetition_penalty)},
              {"repetition_window", VALUE_INT, offsetof(bb_generate_options, repetition_window)},
              {"temperature", VALUE_DOUBLE, offsetof(bb_generate_options, temperature)},
              {"top_k", VALUE_INT, offsetof(bb_generate_options, top_k)},
              {"top_p", VALUE_DOUBLE, offsetof(bb_generate_options, top_p)},
              {"min_p", VALUE_DOUBLE, offsetof(bb_generate_options, min_p)},
              {"seed", VALUE_INT64, offsetof(bb_generate_options, seed)},
              {"context_length", VALUE_INT, offsetof(bb_generate_options, context_length)}};

#define FAIL(item, ...) ((void)snprintf((item)->error, sizeof(item)->error, __VA_ARGS__))

/* Returns false if no field has this name. */
static bool set_field(bb_ordered_item *item, const char *name, const json_t *value) {
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char *to = (char *)&item->options + fields[i].offset;
        if (strcmp(name, fields[i].name) != 0) continue;
        if (fields[i].kind == VALUE_DOUBLE && json_is_number(value)) {
            double number = json_number_value(value);
            memcpy(to, &number, sizeof number);
        } else if (fields[i].kind == VALUE_INT64 && json_is_integer(value)) {
            int64_t number = json_integer_value(value);
            memcpy(to, &number, sizeof number);
        } else if (fields[i].kind == VALUE_INT && json_is_integer(value) && json_integer_value(value) <= INT32_MAX &&
                   json_integer_value(value) >= INT32_MIN) {
            int number = (int)json_integer_value(value);
            memcpy(to, &number, sizeof number);
        } else {
            FAIL(item, "%s: expected %s", name, fields[i].kind == VALUE_DOUBLE ? "a number" : "an integer");
        }
        return true;
    }
    return false;
}

static void set_prompt(prompt_run *r, bb_ordered_item *item, const json_t *value, bool hex) {
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    if (!text) {
        FAIL(item, "%s: expected a string", hex ? "prompt_hex" : "prompt");
        return;
    }
    if (!hex) {
        item->prompt = (bb_bytes){(const uint8_t *)text, size};
        return;
    }
    free(r->prompt);
    r->prompt = malloc(size / 2 + 1);
    bool good = r->prompt && size % 2 == 0;
    for (size_t i = 0; good && i < size / 2; i++) {
        int high = bb_hex_digit(text[2 * i]), low = bb_hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        r->prompt[i] = (uint8_t)(16 * high + low);
    }
    if (good)
        item->prompt = (bb_bytes){r->prompt, size / 2};
    else
        FAIL(item, "prompt_hex: expected pairs of hexadecimal digits");
}

static void set_stops(prompt_run *r, bb_ordered_item *item, json_t *value) {
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    free(r->stops);
    r->stops = calloc(count + 1, sizeof *r->stops);
    for (size_t i = 0; r->stops && i < count; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one)) FAIL(item, "stop: expected a string or an array of strings");
        r->stops[i] = (bb_bytes){(const uint8_t *)json_string_value(one), json_string_length(one)};
    }
    item->options.stops = r->stops;
    item->options.stop_count = r->stops ? (int)count : 0;
}

static void parse(prompt_run *r, bb_ordered_item *item, size_t length) {
    prompt_data *data = item->data;
    json_error_t error;
    const char *key;
    json_t *value;
    bool has_prompt = false;
    json_decref(r->json);
    r->json = json_loadb(r->line, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(r->json)) {
        FAIL(item, "expected a JSON object: %s", r->json ? "found another value" : error.text);
        return;
    }
    data->id = json_incref(json_object_get(r->json, "id"));
    json_object_foreach(r->json, key, value) {
        bool hex = strcmp(key, "prompt_hex") == 0;
        if (strcmp(key, "id") == 0) continue;
        if (hex || strcmp(key, "prompt") == 0) {
            if (has_prompt) FAIL(item, "expected either prompt or prompt_hex");
            has_prompt = true;
            set_prompt(r, item, value, hex);
        } else if (strcmp(key, "stop") == 0) {
            set_stops(r, item, value);
        } else if (!set_field(item, key, value)) {
            FAIL(item, "unknown key '%s'; expected prompt, prompt_hex, id, stop or a generation option", key);
        }
        if (item->error[0]) return;
    }
    if (!has_prompt) FAIL(item, "no prompt");
}

/* Reads the next line that is not blank; returns -1 at the end. */
static ssize_t read_line(prompt_run *r) {
    for (;;) {
        ssize_t length = getline(&r->line, &r->line_capacity, r->in);
        if (length < 0) {
            if (!feof(r->in)) r->read_errno = errno;
            return -1;
        }
        r->lines++;
        if (strspn(r->line, " \t\r\n") < (size_t)length) return length;
    }
}

static bool next_prompt(void *user, bb_ordered_item *item) {
    prompt_run *r = user;
    ssize_t length = read_line(r);
    prompt_data *data = length < 0 ? NULL : calloc(1, sizeof *data);
    if (!data) return false;
    data->line = r->lines;
    item->data = data;
    item->options = r->args->generation->options;
    parse(r, item, (size_t)length);
    return true;
}

static void nothing(void *user, bb_ordered_item *item) {
    (void)user;
    (void)item;
}

static void drop(void *user, bb_ordered_item *item) {
    prompt_data *data = item->data;
    (void)user;
    json_decref(data->id);
    free(data);
}

static void write_result(void *user, bb_ordered_item *item) {
    static const char *const finishes[] = {[BB_FINISH_LENGTH] = "length", [BB_FINISH_STOP] = "stop"};
    prompt_run *r = user;
    const prompt_data *data = item->data;
    if (item->finish == BB_FINISH_CALLER) { /* interrupted by a signal: the next run generates it */
        drop(r, item);
        return;
    }
    json_t *json = json_object();
    if (data->id) json_object_set(json, "id", data->id);
    json_object_set_new(json, "line", json_integer((json_int_t)data->line));
    if (item->finish == BB_FINISH_ERROR) {
        json_object_set_new(json, "error", json_string(item->error));
        r->failures++;
    } else {
        const bb_generate_metrics *m = &item->metrics;
        bb_json_add_bytes(json, item->text, item->length);
        json_t *rest = json_pack("{s:s,s:i,s:I,s:I,s:I,s:f}", "finish", finishes[item->finish], "stop", m->stop, "seed",
                                 (json_int_t)item->options.seed, "prompt_bytes", (json_int_t)m->prompt_bytes, "new_bytes",
                                 (json_int_t)m->new_bytes, "mean_logprob", m->mean_logprob);
        json_object_update(json, rest);
        json_decref(rest);
    }
    if (!bb_json_write(json, r->out)) r->failures++;
    drop(r, item);
    r->finished++;
    r->bytes += (double)item->metrics.new_bytes;
    char detail[64];
    snprintf(detail, sizeof detail, "%lld texts", (long long)r->finished);
    bb_progress_show(
        &r->progress,
        &(bb_progress_bar){
            .what = "generating", .done = (double)r->finished, .total = (double)r->total, .bytes = r->bytes, .detail = detail});
}

static bool stopped(void *user) {
    const prompt_run *r = user;
    return *bb_signals_stop() || ferror(r->out);
}

static bb_status io_error(const char *path, const char *what, bb_error *err) {
    err->code = BB_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: cannot %s: %s", path, what, strerror(errno));
    return err->code;
}

/* A signal ends the input, too. */
static bb_status check_input(const prompt_run *r, bb_error *err) {
    if (!r->read_errno || *bb_signals_stop()) return BB_OK;
    errno = r->read_errno;
    return io_error(r->args->prompts, "read it", err);
}

/* Opens the output and counts its complete lines. An incomplete last line is removed. */
static bb_status open_output(prompt_run *r, bb_error *err) {
    const char *path = r->args->out;
    int64_t lines = 0;
    off_t at = 0, end = 0;
    r->out = stdout;
    if (!path) return BB_OK;
    r->out = fopen(path, "a+");
    if (!r->out) return io_error(path, "open it for writing", err);
    for (int c = getc(r->out); c != EOF; c = getc(r->out)) {
        at++;
        if (c != '\n') continue;
        lines++;
        end = at;
    }
    if (ferror(r->out)) return io_error(path, "read its results", err);
    if (end < at && ftruncate(fileno(r->out), end) != 0) return io_error(path, "remove its incomplete last line", err);
    r->skip = lines;
    return BB_OK;
}

static bb_status open_input(prompt_run *r, bb_error *err) {
    const char *path = r->args->prompts;
    bool standard = strcmp(path, "-") == 0;
    struct stat info;
    r->in = standard ? stdin : fopen(path, "r");
    if (!r->in) return io_error(path, "open it", err);
    if (fstat(fileno(r->in), &info) == 0 && S_ISREG(info.st_mode)) { /* estimates the total */
        off_t from = ftello(r->in);
        while (read_line(r) >= 0) r->total++;
        if (from < 0 || fseeko(r->in, from, SEEK_SET) != 0) return io_error(path, "rewind it", err);
        r->lines = 0;
    }
    for (int64_t i = 0; i < r->skip; i++) {
        if (read_line(r) >= 0) continue;
        bb_status status = check_input(r, err);
        if (status != BB_OK) return status;
        err->code = BB_ERR_DATA;
        snprintf(err->message, sizeof err->message, "%s: it has %lld results, but %s has only %lld prompts; name another file",
                 r->args->out, (long long)r->skip, path, (long long)i);
        return err->code;
    }
    r->finished = r->skip;
    if (r->skip > 0) fprintf(stderr, "note: %s has %lld results; continuing after them\n", r->args->out, (long long)r->skip);
    return BB_OK;
}

int bb_generate_prompts(const bb_prompt_file *args, bb_error *err) {
    prompt_run r = {.args = args};
    const bb_ordered ordered = {.next = next_prompt,
                                .on_begin = nothing,
                                .on_end = write_result,
                                .drop = drop,
                                .stopped = stopped,
                                .user = &r,
                                .keep = true};
    bb_progress_open(&r.progress, stderr, 0);
    bb_status status = open_output(&r, err);
    if (status == BB_OK) status = open_input(&r, err);
    if (status == BB_OK) status = bb_ordered_batch_run(&ordered, args->model, args->batch, err);
    if (status == BB_OK) status = check_input(&r, err);
    bb_progress_clear(&r.progress);
    if (r.in && r.in != stdin) (void)fclose(r.in);
    if (r.out && r.out != stdout && fclose(r.out) != 0 && status == BB_OK) status = io_error(args->out, "write it", err);
    json_decref(r.json);
    free(r.line);
    free(r.prompt);
    free(r.stops);
    if (status != BB_OK) return -1;
    if (r.failures > 0) fprintf(stderr, "note: %lld lines failed; see \"error\" in the results\n", (long long)r.failures);
    int interrupted = bb_signals_exit_status();
    return interrupted ? interrupted : r.failures > 0 ? BB_EXIT_FAILURE : BB_EXIT_OK;
}
