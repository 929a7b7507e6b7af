// SPDX-License-Identifier: MIT
/* bitbyte score: how well a model, or several, predict files, lines or records. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "progress.h"
#include "replacement.h"
#include "scoring/page.h"
#include "scoring/pieces.h"
#include "scoring/rows.h"
#include "signals.h"

enum { CONTEXT_NEWLINE = 0, CONTEXT_PREVIOUS };
static const char *const context_choices[] = {[CONTEXT_NEWLINE] = "newline", [CONTEXT_PREVIOUS] = "previous", NULL};
static const char *const sort_choices[] = {[BB_SCORE_INPUT] = "input", [BB_SCORE_BPB] = "bpb",   [BB_SCORE_BITS] = "bits",
                                           [BB_SCORE_BYTES] = "bytes", [BB_SCORE_DIFF] = "diff", NULL};

typedef struct score_args {
    bb_device_args device;
    bb_import_args import;
    bb_cli_list models, inputs;
    const char *jsonl, *html;
    bool lines, json, csv, diff, ascending, per_byte;
    int context_from, sort, seq_len;
    int64_t top;
} score_args;

/* clang-format off: a table is read by rows */
static const bb_cli_option options[] = {
    {.help = "Input"},
    {.name = "inputs",
     .type = BB_CLI_LIST,
     .offset = offsetof(score_args, inputs),
     .value = "FILE",
     .position = 1,
     .required = true,
     .help =
         "model, unless --model names it, and the files to score: files, pipes, or - for standard input. gzip, zstd, xz, bzip2 "
         "and UTF-16 are detected"},
    {.name = "model",
     .type = BB_CLI_LIST,
     .one_each = true,
     .offset = offsetof(score_args, models),
     .value = "MODEL",
     .help = "model file or run directory; give it several times to compare up to 8 models",
     .default_text = "the first FILE"},
    {.name = "lines",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, lines),
     .help = "score each nonempty line, without its newline, as if it followed a newline"},
    {.name = "jsonl",
     .type = BB_CLI_STRING,
     .offset = offsetof(score_args, jsonl),
     .value = "KEY",
     .help = "files of JSON objects, one per line: score the text under KEY in each"},
    {.name = "context_from",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(score_args, context_from),
     .choices = context_choices,
     .help = "with --lines: what the model sees before a line: a newline, or the lines before it"},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(score_args, seq_len),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "context length in bytes; in longer texts each byte has at least N / 2 bytes of context",
     .default_text = "0: trained length, at most 2048"},
    {.group = &bb_import_group, .offset = offsetof(score_args, import)},
    {.help = "Output"},
    {.name = "sort",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(score_args, sort),
     .choices = sort_choices,
     .help = "order of the rows, largest first; bpb is bits per byte, diff that of the first two models"},
    {.name = "ascending",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, ascending),
     .help = "with --sort: smallest first"},
    {.name = "top",
     .type = BB_CLI_INT64,
     .offset = offsetof(score_args, top),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "print the first N rows only; 0: all"},
    {.name = "diff",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, diff),
     .help = "with two models: bits per byte of the first minus those of the second; negative: the first fits better"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, json),
     .help = "print one JSON object per row: file, line, text, bytes, bits, bpb; with several models also models, best, diff"},
    {.name = "csv",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, csv),
     .help = "print comma-separated values with a header"},
    {.name = "per_byte",
     .type = BB_CLI_FLAG,
     .offset = offsetof(score_args, per_byte),
     .help = "also print each byte's bits, and how many bytes the model considered likelier"},
    {.name = "html",
     .type = BB_CLI_STRING,
     .offset = offsetof(score_args, html),
     .value = "FILE",
     .help = "also write a page that colours each character by its bits"},
    {.help = "Machine"},
    {.group = &bb_device_group, .offset = offsetof(score_args, device)},
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "score",
    .summary = "measures how well a model predicts each file, line or record, in bits per byte: unusual text scores high, text "
               "like the training data low.",
    .usage = "MODEL FILE... | --model A --model B FILE... [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte score runs/logs today.log --lines --sort bpb --top 20   # the oddest lines\n"
                "  bitbyte score runs/books corpus.jsonl --jsonl text --json >scores.jsonl\n"
                "  bitbyte score --model runs/english --model runs/german letters/* --diff\n"
                "  bitbyte score runs/books page.txt --html surprise.html\n",
};

enum { CHUNK_TEXTS = 1 << 16, CONTEXT_BYTES = 1 << 12 }; /* the latter: at least half of the library's longest window */

/* A line or a record. */
typedef struct record {
    int64_t line;
    char *owned; /* to be freed after use, or NULL */
} record;

typedef struct score_run {
    const score_args *args;
    const char *models[BB_SCORE_MODELS];
    bb_found_model found[BB_SCORE_MODELS];
    int model_count;
    bb_score_rows rows;
    bb_replacement page; /* stream NULL: none */
    bb_progress progress;
    /* records of the current chunk */
    const char *file;
    int64_t line;         /* number of the latest line */
    bb_score_text *texts; /* (CHUNK_TEXTS) */
    record *records;      /* (CHUNK_TEXTS) */
    double *bits;         /* (CHUNK_TEXTS, BB_SCORE_MODELS) */
    int64_t count;
    size_t chunk_bytes;
    float *byte_bits; /* memory for the bits of each byte of the chunk's texts, if bytes are shown */
    uint8_t *byte_ranks;
    double scored; /* bytes scored so far */
    int64_t bad_records;
} score_run;

static bb_status out_of_memory(bb_error *err) {
    err->code = BB_ERR_MEMORY;
    strcpy(err->message, "out of memory for the scores");
    return BB_ERR_MEMORY;
}

static void on_progress(void *user, int64_t done, int64_t total) {
    score_run *r = user;
    (void)total;
    const bb_progress_bar bar = {
        .what = "scoring", .bytes = r->scored + (double)done, .done = r->scored + (double)done, .detail = r->file};
    bb_progress_show(&r->progress, &bar);
}

static bb_score_options library_options(score_run *r) {
    return (bb_score_options){.struct_size = sizeof(bb_score_options),
                              .seq_len = r->args->seq_len,
                              .on_progress = on_progress,
                              .user = r,
                              .stop = bb_signals_stop()};
}

static bb_status emit(score_run *r, const bb_score_row *row, bb_error *err) {
    if (r->page.stream) bb_score_page_add(r->page.stream, row);
    bb_score_row shown = *row;
    if (!r->args->per_byte) shown.byte_bits = NULL;
    if (r->rows.form == BB_SCORE_TABLE || r->rows.sort == BB_SCORE_INPUT) bb_progress_clear(&r->progress);
    return bb_score_rows_add(&r->rows, &shown) ? BB_OK : out_of_memory(err);
}

/* Returns a piece with the bytes before it. */
static bb_score_text text_of(const bb_score_pieces *p) {
    return (bb_score_text){.context = {(const uint8_t *)p->bytes, p->before},
                           .text = {(const uint8_t *)p->bytes + p->before, p->size}};
}

/* Allocates memory for the per-byte results of a chunk. */
static bb_status alloc_byte_results(score_run *r, bb_error *err) {
    free(r->byte_bits);
    free(r->byte_ranks);
    r->byte_bits = malloc((r->chunk_bytes + 1) * sizeof *r->byte_bits);
    r->byte_ranks = malloc(r->chunk_bytes + 1);
    if (!r->byte_bits || !r->byte_ranks) return out_of_memory(err);
    size_t at = 0;
    for (int64_t i = 0; i < r->count; i++) {
        r->texts[i].byte_bits = r->byte_bits + at;
        r->texts[i].byte_ranks = r->byte_ranks + at;
        at += r->texts[i].text.size;
    }
    return BB_OK;
}

/* Scores the chunk with every model, and emits its rows. */
static bb_status flush(score_run *r, bb_error *err) {
    bb_score_options o = library_options(r);
    bb_status status = r->args->per_byte || r->page.stream ? alloc_byte_results(r, err) : BB_OK;
    for (int m = r->model_count - 1; m >= 0 && status == BB_OK; m--) { /* the bits of each byte are the first one's */
        status = bb_score(r->found[m].model, r->texts, r->count, &o, err);
        for (int64_t i = 0; i < r->count && status == BB_OK; i++) r->bits[i * BB_SCORE_MODELS + m] = r->texts[i].bits;
    }
    r->scored += (double)r->chunk_bytes;
    for (int64_t i = 0; i < r->count; i++) {
        const bb_score_text *t = &r->texts[i];
        bb_score_row row = {.file = r->file,
                            .line = r->records[i].line,
                            .text = (const char *)t->text.data,
                            .size = t->text.size,
                            .byte_bits = t->byte_bits,
                            .byte_ranks = t->byte_ranks};
        memcpy(row.bits, r->bits + i * BB_SCORE_MODELS, sizeof row.bits);
        if (status == BB_OK) status = emit(r, &row, err);
        free(r->records[i].owned);
    }
    r->count = 0;
    r->chunk_bytes = 0;
    return status;
}

/* owned: freed after use; text points into it or elsewhere. */
static bb_status add(score_run *r, int64_t line, const char *text, size_t size, char *owned, bb_error *err) {
    r->texts[r->count] = (bb_score_text){.text = {(const uint8_t *)text, size}};
    r->records[r->count++] = (record){line, owned};
    r->chunk_bytes += size;
    return r->count == CHUNK_TEXTS ? flush(r, err) : BB_OK;
}

static bb_status add_record(score_run *r, int64_t number, const char *line, size_t size, bb_error *err) {
    json_error_t error;
    json_t *json = json_loadb(line, size, JSON_ALLOW_NUL, &error);
    const json_t *value = json_object_get(json, r->args->jsonl);
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    char *owned = text ? malloc(length + 1) : NULL;
    bb_status status = BB_OK;
    if (!text) {
        if (r->bad_records++ == 0)
            fprintf(stderr, "note: %s:%lld: no text under \"%s\"; such lines are skipped\n", r->file, (long long)number,
                    r->args->jsonl);
    } else if (!owned) {
        status = out_of_memory(err);
    } else {
        memcpy(owned, text, length);
        status = add(r, number, owned, length, owned, err);
    }
    json_decref(json);
    return status;
}

/* Scores the lines of a piece in sequence, as one text, and distributes the bits over the lines. */
static bb_status score_sequence(score_run *r, const bb_score_pieces *p, bb_error *err) {
    bb_score_options o = library_options(r);
    bb_status status = BB_OK;
    float *bits[BB_SCORE_MODELS] = {NULL};
    const int models = r->model_count;
    const char *text = p->bytes + p->before;
    uint8_t *ranks = r->args->per_byte || r->page.stream ? malloc(p->size + 1) : NULL;
    for (int m = 0; m < models && status == BB_OK; m++) {
        bits[m] = malloc((p->size + 1) * sizeof *bits[m]);
        bb_score_text whole = text_of(p);
        whole.byte_bits = bits[m];
        whole.byte_ranks = m == 0 ? ranks : NULL;
        status = bits[m] ? bb_score(r->found[m].model, &whole, 1, &o, err) : out_of_memory(err);
    }
    r->scored += (double)p->size;
    for (size_t at = 0, next; at < p->size && status == BB_OK; at = next) {
        const char *newline = memchr(text + at, '\n', p->size - at);
        size_t end = newline ? (size_t)(newline - text) : p->size;
        next = end + 1;
        bb_score_row row = {.file = r->file, .line = ++r->line, .text = text + at, .size = end - at};
        if (ranks) {
            row.byte_bits = bits[0] + at;
            row.byte_ranks = ranks + at;
        }
        for (int m = 0; m < models; m++)
            for (size_t i = at; i < end; i++) row.bits[m] += (double)bits[m][i];
        if (end > at) status = emit(r, &row, err);
    }
    for (int m = 0; m < models; m++) free(bits[m]);
    free(ranks);
    return status;
}

static bb_status score_lines(score_run *r, const bb_score_pieces *p, bb_error *err) {
    const char *text = p->bytes + p->before;
    bb_status status = BB_OK;
    for (size_t at = 0, next; at < p->size && status == BB_OK; at = next) {
        const char *newline = memchr(text + at, '\n', p->size - at);
        size_t end = newline ? (size_t)(newline - text) : p->size;
        next = end + 1;
        r->line++;
        if (end > at && text[end - 1] == '\r') end--;
        if (end == at) continue;
        status =
            r->args->jsonl ? add_record(r, r->line, text + at, end - at, err) : add(r, r->line, text + at, end - at, NULL, err);
    }
    if (status == BB_OK && r->count) status = flush(r, err);
    fflush(stdout); /* a reader of `tail -f log | bitbyte score -` waits for these rows; failures are noticed at the end */
    return status;
}

/* Adds a piece of a file to the file's row. */
static bb_status score_piece(score_run *r, const bb_score_pieces *p, bb_score_row *row, bb_error *err) {
    bb_score_options o = library_options(r);
    bb_score_text piece = text_of(p);
    for (int m = 0; m < r->model_count; m++) {
        bb_status status = bb_score(r->found[m].model, &piece, 1, &o, err);
        if (status != BB_OK) return status;
        row->bits[m] += piece.bits;
    }
    row->size += p->size;
    r->scored += (double)p->size;
    return BB_OK;
}

static bb_status score_pieces(score_run *r, bb_score_pieces *p, bb_error *err) {
    bool sequence = r->args->lines && r->args->context_from == CONTEXT_PREVIOUS, lines = r->args->lines || r->args->jsonl;
    bb_score_row row = {.file = r->file};
    bb_status status = bb_score_pieces_next(p, err);
    while (status == BB_OK && p->size) {
        status = sequence ? score_sequence(r, p, err) : lines ? score_lines(r, p, err) : score_piece(r, p, &row, err);
        if (status == BB_OK) status = bb_score_pieces_next(p, err);
    }
    return status == BB_OK && !lines ? emit(r, &row, err) : status;
}

/* Scores a file whose bytes are shown, which is read whole. */
static bb_status score_whole(score_run *r, const char *path, bb_error *err) {
    char *text;
    size_t size;
    bb_status status = bb_read_text(path, bb_signals_stop(), &text, &size, err);
    if (status != BB_OK) return status;
    status = add(r, 0, text, size, NULL, err);
    if (status == BB_OK) status = flush(r, err);
    bb_string_free(text);
    return status;
}

static bb_status score_file(score_run *r, const char *path, bb_error *err) {
    bool lines = r->args->lines || r->args->jsonl;
    size_t context = lines && r->args->context_from != CONTEXT_PREVIOUS ? 0 : CONTEXT_BYTES;
    bb_score_pieces pieces;
    r->file = strcmp(path, "-") == 0 ? "(standard input)" : path;
    r->line = 0;
    if (!lines && (r->args->per_byte || r->page.stream)) return score_whole(r, path, err);
    if (context && r->args->seq_len > CONTEXT_BYTES) context = (size_t)r->args->seq_len;
    bb_status status = bb_score_pieces_open(path, context, lines, &pieces, err);
    if (status != BB_OK) return status;
    status = score_pieces(r, &pieces, err);
    for (int64_t i = 0; i < r->count; i++) free(r->records[i].owned);
    r->count = 0;
    bb_score_pieces_close(&pieces);
    return status;
}

static const char *contradiction(const bb_cli *cli, const score_args *args) {
    int models = args->models.count ? args->models.count : 1;
    if (args->lines && args->jsonl) return "give --lines or --jsonl, not both";
    if (args->json && args->csv) return "give --json or --csv, not both";
    if (bb_cli_given(cli, "context_from") && !args->lines) return "--context_from needs --lines";
    if (models > BB_SCORE_MODELS) return "at most 8 models can be compared";
    if (args->diff && models != 2) return "--diff compares two models; give --model A --model B";
    if (args->sort == BB_SCORE_DIFF && !args->diff) return "--sort diff needs --diff";
    if (args->inputs.count < (args->models.count ? 1 : 2)) return "nothing to score: bitbyte score MODEL FILE...";
    if (args->seq_len == 1) return "--seq_len must be at least 2";
    return NULL;
}

static void note_unused(const bb_cli *cli, const score_args *args) {
    if (args->sort == BB_SCORE_INPUT) bb_cli_unused(cli, "ascending", "rows are in the order of the input; see --sort");
    bb_device_args_notes(cli, &args->device);
}

static bb_status open_page(score_run *r, bb_error *err) {
    if (!r->args->html) return BB_OK;
    const char *read[BB_SCORE_MODELS];
    for (int m = 0; m < r->model_count; m++) read[m] = r->found[m].path;
    bb_status status = bb_replacement_check(r->args->html, read, r->model_count, err);
    if (status == BB_OK) status = bb_replacement_check(r->args->html, r->args->inputs.items, r->args->inputs.count, err);
    if (status == BB_OK) status = bb_replacement_open_stream(&r->page, r->args->html, err);
    if (status == BB_OK) bb_score_page_begin(r->page.stream, r->models[0]);
    return status;
}

static bb_status close_page(score_run *r, bb_status status, bb_error *err) {
    if (!r->page.stream) return status;
    bb_score_page_end(r->page.stream);
    return bb_replacement_close(&r->page, status, err);
}

static bb_status score_inputs(score_run *r, int first, bb_error *err) {
    bb_status status = open_page(r, err);
    for (int i = first; i < r->args->inputs.count && status == BB_OK; i++)
        status = score_file(r, r->args->inputs.items[i], err);
    bb_progress_clear(&r->progress);
    status = close_page(r, status, err);
    bb_score_rows_end(&r->rows);
    return status;
}

static int score(const bb_cli *cli, const score_args *args) {
    const char *wrong = contradiction(cli, args);
    if (wrong) return bb_cli_usage_error(&command, "%s", wrong);
    note_unused(cli, args);
    static score_run r; /* its paths are long */
    bb_error err;
    bb_device *device = NULL;
    int first = args->models.count ? 0 : 1;
    r = (score_run){.args = args, .model_count = first ? 1 : args->models.count};
    r.rows = (bb_score_rows){.form = args->json  ? BB_SCORE_JSON
                                     : args->csv ? BB_SCORE_CSV
                                                 : BB_SCORE_TABLE,
                             .sort = (bb_score_sort)args->sort,
                             .ascending = args->ascending,
                             .diff = args->diff,
                             .lines = args->lines || args->jsonl,
                             .top = args->top,
                             .models = r.models,
                             .model_count = r.model_count};
    bb_progress_open(&r.progress, stderr, 0);
    r.texts = malloc(CHUNK_TEXTS * sizeof *r.texts);
    r.records = calloc(CHUNK_TEXTS, sizeof *r.records);
    r.bits = malloc(CHUNK_TEXTS * BB_SCORE_MODELS * sizeof *r.bits);
    bb_status status = r.texts && r.records && r.bits ? BB_OK : out_of_memory(&err);
    if (status == BB_OK) status = bb_device_args_open(&args->device, NULL, &device, &err);
    for (int m = 0; m < r.model_count && status == BB_OK; m++) {
        r.models[m] = first ? args->inputs.items[0] : args->models.items[m];
        status = bb_model_open(device, r.models[m], &args->import, &r.found[m], &err);
    }
    bb_signals_install(NULL, NULL, NULL);
    if (status == BB_OK) status = score_inputs(&r, first, &err);
    int exit_status = status == BB_OK || status == BB_ERR_INTERRUPTED ? bb_signals_exit_status() : bb_cli_fail(&command, &err);
    if (r.bad_records > 1)
        fprintf(stderr, "note: %lld lines without a text under \"%s\" were skipped\n", (long long)r.bad_records, args->jsonl);
    for (int m = 0; m < r.model_count; m++) bb_model_free(r.found[m].model);
    bb_device_close(device);
    free(r.texts);
    free(r.records);
    free(r.bits);
    free(r.byte_bits);
    free(r.byte_ranks);
    return exit_status;
}

int bb_cmd_score(int argc, char **argv) {
    score_args args = {.top = 0};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = score(&cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}
