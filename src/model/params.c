// SPDX-License-Identifier: MIT
#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "model/config.h"

typedef struct builder {
    bb_param_table *table;
    bool for_inference, dense;
} builder;

static bb_param *add(const builder *b, const char *name, int64_t rows, int64_t cols, bb_init init) {
    bb_param_table *t = b->table;
    bb_param *p = &t->entries[t->count++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->rank = cols ? 2 : 1;
    p->shape[0] = rows;
    p->shape[1] = cols ? cols : 1;
    p->count = p->shape[0] * p->shape[1];
    p->init = init;
    p->linear = init == BB_INIT_UNIFORM;
    p->ternary = p->linear && !b->dense;
    p->ngram = init == BB_INIT_ZEROS;
    p->decays = p->rank == 2 && !p->ngram;
    bool held = !((p->ternary || p->ngram) && b->for_inference);
    p->offset = held ? t->held : -1;
    t->total += p->count;
    if (held) t->held += p->count;
    p->matrices = 1;
    return p;
}

bb_status bb_param_table_create(const bb_config *c, bool for_inference, bb_param_table *out, bb_error *err) {
    int64_t ngram_rows = bb_config_ngram_rows(c);
    *out = (bb_param_table){.ngram = ngram_rows ? 1 : -1, .first_block = ngram_rows ? 2 : 1};
    size_t n = (size_t)(out->first_block + c->n_layer * BB_PARAMS_PER_BLOCK + 1);
    out->entries = calloc(n, sizeof *out->entries);
    if (!out->entries) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a table of %zu tensors", n);
    int64_t C = c->d_model, kv = (int64_t)c->n_kv_head * (C / c->n_head), F = c->d_ff;
    /* rows, columns (0: a vector), matrices, in the order of BB_P_* */
    const struct {
        const char *suffix;
        int64_t rows, cols;
        bb_init init;
        int matrices;
    } block[BB_PARAMS_PER_BLOCK] = {
        [BB_P_N1] = {"n1.weight", C, 0, BB_INIT_ONES, 1},
        [BB_P_Q] = {"attn.q_proj.weight", C, C, BB_INIT_UNIFORM, c->n_head},
        [BB_P_K] = {"attn.k_proj.weight", kv, C, BB_INIT_UNIFORM, c->n_kv_head},
        [BB_P_V] = {"attn.v_proj.weight", kv, C, BB_INIT_UNIFORM, 1},
        [BB_P_O] = {"attn.o_proj.weight", C, C, BB_INIT_UNIFORM, 1},
        [BB_P_N2] = {"n2.weight", C, 0, BB_INIT_ONES, 1},
        [BB_P_GATE_UP] = {"mlp.gate_up.weight", 2 * F, C, BB_INIT_UNIFORM, 2},
        [BB_P_DOWN] = {"mlp.down.weight", C, F, BB_INIT_UNIFORM, 1},
    };
    const builder b = {.table = out, .for_inference = for_inference, .dense = c->dense};
    add(&b, "tok_emb.weight", c->vocab_size, C, BB_INIT_NORMAL);
    /* low in the range, because its gradients, like the embedding's, are complete last */
    if (ngram_rows) add(&b, "ngram_emb.weight", ngram_rows, C, BB_INIT_ZEROS);
    for (int l = 0; l < c->n_layer; l++)
        for (int i = 0; i < BB_PARAMS_PER_BLOCK; i++) {
            char name[sizeof out->entries->name];
            snprintf(name, sizeof name, "blocks.%d.%s", l, block[i].suffix);
            add(&b, name, block[i].rows, block[i].cols, block[i].init)->matrices = block[i].matrices;
        }
    add(&b, "norm_f.weight", C, 0, BB_INIT_ONES);
    return BB_OK;
}

void bb_param_table_free(bb_param_table *table) {
    free(table->entries);
    *table = (bb_param_table){0};
}

const bb_param *bb_param_find(const bb_param_table *table, const char *name) {
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->entries[i].name, name) == 0) return &table->entries[i];
    return NULL;
}

void bb_param_initial_values(const bb_param_table *table, int index, int64_t first, int64_t n, uint64_t seed, float *out) {
    const bb_param *p = &table->entries[index];
    double bound = 1 / sqrt((double)p->shape[1]);
    uint64_t stream = BB_STREAM_INIT + (uint64_t)index;
    uint32_t words[4]; /* one Philox block serves four adjacent elements */
    for (int64_t i = first; i < first + n; i++) {
        float value = p->init == BB_INIT_ZEROS ? 0 : 1;
        if (p->init == BB_INIT_NORMAL) {
            value = (float)(bound * bb_rng_normal(seed, stream, (uint64_t)i));
        } else if (p->init == BB_INIT_UNIFORM) {
            if (i == first || i % 4 == 0) bb_philox(seed, stream, (uint64_t)i / 4, words);
            value = (float)(bound * (((double)words[i % 4] + 0.5) * 0x1p-31 - 1));
        }
        out[i - first] = value;
    }
}
