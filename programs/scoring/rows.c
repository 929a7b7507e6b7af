// SPDX-License-Identifier: MIT
#include "rows.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../json_out.h"
#include "../text_out.h"

enum { SHOWN = 100 }; /* maximum bytes of a line shown in a table */

static double per_byte(double bits, size_t bytes) { return bytes ? bits / (double)bytes : 0; }
static double bpb(const bb_score_row *row, int model) { return per_byte(row->bits[model], row->size); }
static double difference(const bb_score_row *row) { return bpb(row, 0) - bpb(row, 1); }

static int best_model(const bb_score_rows *rows, const bb_score_row *row) {
    int best = 0;
    for (int m = 1; m < rows->model_count; m++)
        if (row->bits[m] < row->bits[best]) best = m;
    return best;
}

/* ---- one row ---------------------------------------------------------------------------------------------------------- */

static void show_text(const char *text, size_t size) {
    bb_text_out out;
    bb_text_out_open(&out, stdout, false);
    for (size_t i = 0; i < size && i < SHOWN; i++) bb_text_out_byte(&out, text[i] == '\n' ? ' ' : (uint8_t)text[i]);
    bb_text_out_end(&out);
    if (size > SHOWN) fputs("\xE2\x80\xA6", stdout);
}

static void table_head(const bb_score_rows *rows) {
    for (int m = 0; m < rows->model_count; m++)
        if (rows->model_count == 1)
            printf("%8s ", "bpb");
        else
            printf("%6s %d ", "bpb", m + 1);
    if (rows->diff) printf("%8s ", "diff");
    printf("%10s  %s\n", "bytes", rows->lines ? "line: text" : "file");
}

static void table_numbers(const bb_score_rows *rows, const bb_score_row *row) {
    for (int m = 0; m < rows->model_count; m++) printf("%8.4f ", bpb(row, m));
    if (rows->diff) printf("%+8.4f ", difference(row));
    printf("%10zu  ", row->size);
}

static void table_row(const bb_score_rows *rows, const bb_score_row *row) {
    table_numbers(rows, row);
    if (row->line) {
        printf("%s:%lld: ", row->file, (long long)row->line);
        show_text(row->text, row->size);
    } else {
        printf("%s", row->file);
    }
    if (rows->model_count > 1) printf("  [%s]", rows->models[best_model(rows, row)]);
    putchar('\n');
    for (size_t i = 0; row->byte_bits && i < row->size; i++) {
        printf("  %10zu %8.4f %3d  0x%02x ", i, (double)row->byte_bits[i], row->byte_ranks[i], (uint8_t)row->text[i]);
        if (row->text[i] > ' ' && row->text[i] < 127) putchar(row->text[i]);
        putchar('\n');
    }
}

static void json_row(const bb_score_rows *rows, const bb_score_row *row) {
    json_t *json = json_object();
    json_object_set_new(json, "file", bb_json_path_string(row->file));
    if (row->line) {
        json_object_set_new(json, "line", json_integer((json_int_t)row->line));
        bb_json_add_bytes(json, (const uint8_t *)row->text, row->size);
    }
    json_object_set_new(json, "bytes", json_integer((json_int_t)row->size));
    json_object_set_new(json, "bits", json_real(row->bits[0]));
    json_object_set_new(json, "bpb", json_real(bpb(row, 0)));
    if (rows->model_count > 1) {
        json_t *all = json_array();
        for (int m = 0; m < rows->model_count; m++)
            json_array_append_new(all, json_pack("{s:o,s:f,s:f}", "model", bb_json_path_string(rows->models[m]), "bits",
                                                 row->bits[m], "bpb", bpb(row, m)));
        json_object_set_new(json, "models", all);
        json_object_set_new(json, "best", bb_json_path_string(rows->models[best_model(rows, row)]));
    }
    if (rows->diff) json_object_set_new(json, "diff", json_real(difference(row)));
    if (row->byte_bits) {
        json_t *bits = json_array(), *ranks = json_array();
        for (size_t i = 0; i < row->size; i++) {
            json_array_append_new(bits, json_real((double)row->byte_bits[i]));
            json_array_append_new(ranks, json_integer(row->byte_ranks[i]));
        }
        json_object_set_new(json, "byte_bits", bits);
        json_object_set_new(json, "byte_ranks", ranks);
    }
    if (!bb_json_write(json, stdout)) fprintf(stderr, "note: out of memory for the JSON of a row\n");
}

static void csv_text(const char *text, size_t size) {
    putchar('"');
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') putchar('"');
        putchar(text[i]);
    }
    putchar('"');
}

static void csv_head(const bb_score_rows *rows, bool each_byte) {
    printf("file,line,bytes");
    for (int m = 0; m < rows->model_count; m++)
        if (m == 0)
            printf(",bits,bpb");
        else
            printf(",bits_%d,bpb_%d", m + 1, m + 1);
    if (rows->diff) printf(",diff");
    if (rows->lines) printf(",text");
    printf(each_byte ? ",offset,byte,byte_bits,byte_rank\n" : "\n");
}

static void csv_fields(const bb_score_rows *rows, const bb_score_row *row) {
    csv_text(row->file, strlen(row->file));
    printf(",%lld,%zu", (long long)row->line, row->size);
    for (int m = 0; m < rows->model_count; m++) printf(",%.6g,%.6g", row->bits[m], bpb(row, m));
    if (rows->diff) printf(",%.6g", difference(row));
    if (rows->lines) {
        putchar(',');
        csv_text(row->text, row->size);
    }
}

static void csv_row(const bb_score_rows *rows, const bb_score_row *row) {
    for (size_t i = 0; row->byte_bits && i < row->size; i++) {
        csv_fields(rows, row);
        printf(",%zu,%d,%.6g,%d\n", i, (uint8_t)row->text[i], (double)row->byte_bits[i], row->byte_ranks[i]);
    }
    if (row->byte_bits) return;
    csv_fields(rows, row);
    putchar('\n');
}

static void print_head(const bb_score_rows *rows, bool each_byte) {
    if (rows->form == BB_SCORE_TABLE) table_head(rows);
    if (rows->form == BB_SCORE_CSV) csv_head(rows, each_byte);
}

static void print_row(const bb_score_rows *rows, const bb_score_row *row) {
    switch (rows->form) {
    case BB_SCORE_JSON: json_row(rows, row); break;
    case BB_SCORE_CSV: csv_row(rows, row); break;
    default: table_row(rows, row); break;
    }
}

/* ---- all of them -------------------------------------------------------------------------------------------------------- */

static double sort_key(bb_score_sort sort, const bb_score_row *row) {
    switch (sort) {
    case BB_SCORE_BITS: return row->bits[0];
    case BB_SCORE_BYTES: return (double)row->size;
    case BB_SCORE_DIFF: return difference(row);
    default: return bpb(row, 0);
    }
}

typedef struct keyed {
    double key;
    int64_t index;
} keyed;

static int compare_keyed(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->key < y->key || x->key > y->key) return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void free_row(bb_score_row *row) {
    free((void *)(uintptr_t)row->text);
    free((void *)(uintptr_t)row->byte_bits);
    free((void *)(uintptr_t)row->byte_ranks);
}

/* Sorts the stored rows, and drops those beyond the top. Returns false if out of memory. */
static bool sort_rows(bb_score_rows *rows) {
    keyed *keys = malloc((size_t)(rows->count + 1) * sizeof *keys);
    bb_score_row *sorted = malloc((size_t)(rows->count + 1) * sizeof *sorted);
    bool good = keys && sorted;
    for (int64_t i = 0; good && i < rows->count; i++) {
        double key = sort_key(rows->sort, &rows->held[i]);
        keys[i] = (keyed){rows->sort == BB_SCORE_INPUT ? 0 : rows->ascending ? key : -key, i};
    }
    if (good) {
        qsort(keys, (size_t)rows->count, sizeof *keys, compare_keyed);
        int64_t left = rows->top && rows->top < rows->count ? rows->top : rows->count;
        for (int64_t i = 0; i < left; i++) sorted[i] = rows->held[keys[i].index];
        for (int64_t i = left; i < rows->count; i++) free_row(&rows->held[keys[i].index]);
        memcpy(rows->held, sorted, (size_t)left * sizeof *sorted);
        rows->count = left;
    }
    free(keys);
    free(sorted);
    return good;
}

static void *copy(const void *from, size_t bytes) {
    void *to = malloc(bytes + 1);
    if (to && bytes > 0) memcpy(to, from, bytes);
    return to;
}

/* Stores a copy; the file's name must outlive the rows. */
static bool hold(bb_score_rows *rows, const bb_score_row *row) {
    if (rows->count == rows->capacity) {
        if (rows->top && rows->count >= 2 * rows->top + 4096) {
            if (!sort_rows(rows)) return false;
        } else {
            int64_t capacity = rows->capacity ? 2 * rows->capacity : 1024;
            bb_score_row *larger = realloc(rows->held, (size_t)capacity * sizeof *larger);
            if (!larger) return false;
            rows->held = larger;
            rows->capacity = capacity;
        }
    }
    bb_score_row *held = &rows->held[rows->count];
    *held = *row;
    held->text = copy(row->text, row->text ? row->size : 0);
    if (row->byte_bits) {
        held->byte_bits = copy(row->byte_bits, row->size * sizeof *row->byte_bits);
        held->byte_ranks = copy(row->byte_ranks, row->size);
    }
    if (held->text && (!row->byte_bits || (held->byte_bits && held->byte_ranks))) {
        rows->count++;
        return true;
    }
    free_row(held);
    return false;
}

bool bb_score_rows_add(bb_score_rows *rows, const bb_score_row *row) {
    rows->bytes += (double)row->size;
    for (int m = 0; m < rows->model_count; m++) rows->bits[m] += row->bits[m];
    if (rows->added++ == 0) print_head(rows, row->byte_bits != NULL);
    if (rows->sort != BB_SCORE_INPUT) return hold(rows, row);
    if (!rows->top || rows->added <= rows->top) print_row(rows, row);
    return true;
}

void bb_score_rows_end(bb_score_rows *rows) {
    if (rows->sort != BB_SCORE_INPUT && !sort_rows(rows)) fprintf(stderr, "note: out of memory: the rows are not sorted\n");
    for (int64_t i = 0; i < rows->count; i++) {
        print_row(rows, &rows->held[i]);
        free_row(&rows->held[i]);
    }
    free(rows->held);
    rows->held = NULL;
    rows->count = 0;
    if (rows->form != BB_SCORE_TABLE || rows->added < 2) return;
    bb_score_row all = {.size = (size_t)rows->bytes};
    memcpy(all.bits, rows->bits, sizeof all.bits);
    table_numbers(rows, &all);
    printf("all %lld %s\n", (long long)rows->added, rows->lines ? "lines" : "files");
}
