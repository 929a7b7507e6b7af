// SPDX-License-Identifier: MIT
/* Prints the results of bitbyte score as a table, JSON lines or CSV, in the order of the input or sorted. */
#ifndef BB_PROGRAMS_SCORING_ROWS_H
#define BB_PROGRAMS_SCORING_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BB_SCORE_MODELS = 8 };

typedef struct bb_score_row {
    const char *file;
    int64_t line;     /* number of the line or record; 0: a whole file */
    const char *text; /* (size); NULL for a whole file, unless each byte is shown */
    size_t size;
    double bits[BB_SCORE_MODELS];
    const float *byte_bits; /* (size); NULL unless each byte is shown */
    const uint8_t *byte_ranks;
} bb_score_row;

typedef enum bb_score_form { BB_SCORE_TABLE, BB_SCORE_JSON, BB_SCORE_CSV } bb_score_form;
typedef enum bb_score_sort { BB_SCORE_INPUT = 0, BB_SCORE_BPB, BB_SCORE_BITS, BB_SCORE_BYTES, BB_SCORE_DIFF } bb_score_sort;

typedef struct bb_score_rows {
    bb_score_form form;
    bb_score_sort sort; /* BB_SCORE_INPUT: rows are printed immediately, the first `top` of them */
    bool ascending, diff, lines;
    int64_t top; /* 0: all */
    const char *const *models;
    int model_count;
    bb_score_row *held; /* copies of the rows to sort */
    int64_t count, capacity, added;
    double bytes, bits[BB_SCORE_MODELS]; /* totals of all rows */
} bb_score_rows;

/* Prints the row, or stores a copy. Returns false if out of memory. */
bool bb_score_rows_add(bb_score_rows *rows, const bb_score_row *row);
/* Prints the stored rows and, in a table of more than one row, the total. Frees the rows. */
void bb_score_rows_end(bb_score_rows *rows);

#endif
