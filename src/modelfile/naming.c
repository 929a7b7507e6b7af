// SPDX-License-Identifier: MIT
/* Shared by the layouts of other programs' files: their names for our parameters, and the head tied to the embedding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modelfile/layouts.h"

static bool is_numeric(bb_file_dtype t) {
    return t == BB_FILE_F32 || t == BB_FILE_F16 || t == BB_FILE_BF16 || t == BB_FILE_F64 || t == BB_FILE_Q8_0 ||
           t == BB_FILE_TQ1_0 || t == BB_FILE_TQ2_0 || t == BB_FILE_Q2_0;
}

bb_tensor_names bb_naming_tensors(const bb_naming *naming, const bb_config *config, const bb_param *p) {
    static const char *const ours[BB_PARAMS_PER_BLOCK] = {[BB_P_N1] = "n1.weight",
                                                          [BB_P_Q] = "attn.q_proj.weight",
                                                          [BB_P_K] = "attn.k_proj.weight",
                                                          [BB_P_V] = "attn.v_proj.weight",
                                                          [BB_P_O] = "attn.o_proj.weight",
                                                          [BB_P_N2] = "n2.weight",
                                                          [BB_P_GATE_UP] = "mlp.gate_up.weight",
                                                          [BB_P_DOWN] = "mlp.down.weight"};
    bb_tensor_names t = {.count = 1};
    if (strncmp(p->name, "blocks.", 7) != 0) {
        bool embedding = strcmp(p->name, "tok_emb.weight") == 0;
        (void)snprintf(t.text[0], sizeof t.text[0], "%s.weight", embedding ? naming->embedding : naming->norm);
        return t;
    }
    char *rest;
    long layer = strtol(p->name + 7, &rest, 10);
    for (int i = 0; i < BB_PARAMS_PER_BLOCK; i++) {
        if (strcmp(rest + 1, ours[i]) != 0) continue;
        if (naming->interleaved && i == BB_P_Q) t.interleaved_heads = config->n_head;
        if (naming->interleaved && i == BB_P_K) t.interleaved_heads = config->n_kv_head;
        for (t.count = 0; t.count < 2 && naming->parts[i][t.count]; t.count++)
            (void)snprintf(t.text[t.count], sizeof t.text[0], "%s%ld.%s.weight", naming->blocks, layer,
                           naming->parts[i][t.count]);
    }
    return t;
}

/* Finds tensor "NAME.weight"; NULL if missing. */
static const bb_file_tensor *find_weight(const bb_tensor_source *s, const char *name) {
    char text[64];
    (void)snprintf(text, sizeof text, "%s.weight", name);
    return bb_tensor_source_find(s, text);
}

bb_status bb_naming_find(const bb_naming *naming, const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    bb_tensor_names names = bb_naming_tensors(naming, &w->config, p);
    const char *path = bb_tensor_source_path(w->source);
    int64_t shape[2] = {p->shape[0] / names.count, p->shape[1]};
    *out = (bb_weight){.part_count = names.count, .interleaved_heads = names.interleaved_heads};
    for (int i = 0; i < names.count; i++) {
        const bb_file_tensor *t = bb_tensor_source_find(w->source, names.text[i]);
        if (!t && strcmp(p->name, "tok_emb.weight") == 0) t = find_weight(w->source, naming->head);
        if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", path, names.text[i]);
        if (!is_numeric(t->dtype) || t->rank != p->rank || memcmp(t->shape, shape, (size_t)p->rank * sizeof *shape) != 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected numbers of shape %s, found %s %s", path, t->name,
                           bb_shape_format(p->rank, shape).text, bb_file_dtype_name(t->dtype),
                           bb_shape_format(t->rank, t->shape).text);
        out->parts[i] = t;
    }
    return BB_OK;
}

static bool is_named(const bb_naming *naming, const bb_param_table *table, const bb_config *c, const char *name) {
    for (int i = 0; i < table->count; i++) {
        bb_tensor_names names = bb_naming_tensors(naming, c, &table->entries[i]);
        for (int k = 0; k < names.count; k++)
            if (strcmp(names.text[k], name) == 0) return true;
    }
    return naming->ignores && naming->ignores(name);
}

bb_status bb_naming_check_others(const bb_naming *naming, const bb_tensor_source *s, const bb_config *c, bb_error *err) {
    bb_config one = *c;
    bb_param_table table;
    size_t prefix = strlen(naming->blocks);
    one.n_layer = 1; /* all blocks use the names of block 0 */
    BB_TRY(bb_param_table_create(&one, false, &table, err));
    bb_status status = BB_OK;
    for (int i = 0; i < bb_tensor_source_count(s) && status == BB_OK; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, i);
        char name[128], none[] = "", *rest = none;
        bool in_block = strncmp(t->name, naming->blocks, prefix) == 0;
        long layer = in_block ? strtol(t->name + prefix, &rest, 10) : 0;
        (void)snprintf(name, sizeof name, "%s", t->name);
        if (in_block && layer >= 0 && layer < c->n_layer) (void)snprintf(name, sizeof name, "%s0%s", naming->blocks, rest);
        if (t != find_weight(s, naming->head) && !is_named(naming, &table, c, name))
            status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': this architecture has no tensor of that name",
                             bb_tensor_source_path(s), t->name);
    }
    bb_param_table_free(&table);
    if (status != BB_OK) return status;
    return bb_layout_check_tied(s, find_weight(s, naming->embedding), find_weight(s, naming->head), err);
}

static bb_status untied(const bb_tensor_source *s, const char *embedding, const char *head, bb_error *err) {
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %s differs from %s; the head must be tied to it", bb_tensor_source_path(s),
                   head, embedding);
}

bb_status bb_layout_check_tied(const bb_tensor_source *s, const bb_file_tensor *embedding, const bb_file_tensor *head,
                               bb_error *err) {
    const bb_file_tensor *e = embedding, *h = head;
    if (!e || !h) return BB_OK;
    if (e->dtype != h->dtype || e->bytes != h->bytes) return untied(s, e->name, h->name, err);
    if (e->bytes > bb_tensor_source_file_bytes(s)) return BB_OK; /* strides of 0; reported when the tensor is read */
    uint8_t *a = malloc((size_t)e->bytes), *b = malloc((size_t)e->bytes);
    bb_status status = a && b ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it", bb_tensor_source_path(s));
    if (status == BB_OK) status = bb_tensor_source_read(s, e, a, err);
    if (status == BB_OK) status = bb_tensor_source_read(s, h, b, err);
    if (status == BB_OK && memcmp(a, b, (size_t)e->bytes) != 0) status = untied(s, e->name, h->name, err);
    free(a);
    free(b);
    return status;
}
