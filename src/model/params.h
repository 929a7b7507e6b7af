// SPDX-License-Identifier: MIT
/* The table of the model's tensors. Initialization, the optimizer, checkpoints, export and the tests use it. */
#ifndef BB_MODEL_PARAMS_H
#define BB_MODEL_PARAMS_H

#include "core/status.h"

typedef enum bb_init {
    BB_INIT_ONES = 0,
    BB_INIT_NORMAL,  /* N(0, 1/sqrt(C)): the embedding */
    BB_INIT_UNIFORM, /* U(-1/sqrt(in), 1/sqrt(in)): every linear weight */
    BB_INIT_ZEROS    /* n-gram embeddings: an n-gram that was never seen adds nothing */
} bb_init;

typedef struct bb_param {
    char name[48]; /* SPEC's name, e.g. "blocks.0.attn.q_proj.weight" */
    int rank;
    int64_t shape[2]; /* rows, columns; a vector has shape[1] = 1 */
    /* range of elements within the contiguous parameters (and gradients); offset -1: not present */
    int64_t offset, count;
    bb_init init;
    bool decays;
    bool linear;  /* the weights of a linear layer of a block */
    bool ternary; /* linear, and the model is not dense */
    bool ngram;   /* the table of n-gram embeddings: 8-bit rows in a model for inference, updated row by row in training */
    int matrices; /* matrices of equal size stacked in it, which Muon updates each for itself: gate and up are two, q and k one a head */
} bb_param;

/* Tensors are stored in table order without gaps, so that q, k, v of a block are one (C + 2 Hk D, C) matrix. A model for
 * inference omits the ternary tensors and the n-gram embeddings, which it holds as codes. */
typedef struct bb_param_table {
    bb_param *entries;
    int count;
    int64_t total;   /* elements in the model */
    int64_t held;    /* elements that are stored: the same, except for inference */
    int ngram;       /* index of the table of n-gram embeddings; -1: none */
    int first_block; /* index of block 0's first tensor */
} bb_param_table;

/* Index of a block's tensor in the table: first_block + layer * BB_PARAMS_PER_BLOCK + one of these. */
enum { BB_P_N1 = 0, BB_P_Q, BB_P_K, BB_P_V, BB_P_O, BB_P_N2, BB_P_GATE_UP, BB_P_DOWN, BB_PARAMS_PER_BLOCK };
enum { BB_PARAM_TOK_EMB = 0 };

/* config must have passed bb_config_check. */
bb_status bb_param_table_create(const bb_config *config, bool for_inference, bb_param_table *out, bb_error *err);
void bb_param_table_free(bb_param_table *table);
/* Returns NULL if there is none of that name. */
const bb_param *bb_param_find(const bb_param_table *table, const char *name);
/* Draws elements first .. first+n-1 of tensor `index` from seed: a pure function of (seed, index, element). */
void bb_param_initial_values(const bb_param_table *table, int index, int64_t first, int64_t n, uint64_t seed, float *out);

#endif
