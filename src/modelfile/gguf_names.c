// SPDX-License-Identifier: MIT
/* Names and numbers of GGUF files of the llama architecture. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modelfile/gguf_names.h"

static const struct {
    bb_file_dtype type;
    int number;
} types[] = {{BB_FILE_F32, 0},  {BB_FILE_F16, 1},  {BB_FILE_Q8_0, 8},  {BB_FILE_I8, 24},    {BB_FILE_I32, 26},
             {BB_FILE_I64, 27}, {BB_FILE_F64, 28}, {BB_FILE_BF16, 30}, {BB_FILE_TQ1_0, 34}, {BB_FILE_TQ2_0, 35}};

int bb_gguf_type_number(bb_file_dtype type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type) return types[i].number;
    return -1;
}

bool bb_gguf_type_of(uint32_t number, bb_file_dtype *out) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint32_t)types[i].number == number) {
            *out = types[i].type;
            return true;
        }
    return false;
}

/* Of a block's tensors: the name after "blocks.N.", and what stands after "blk.N." for it. */
static const struct {
    const char *name, *parts[2];
} names[] = {{"n1.weight", {"attn_norm", NULL}},
             {"attn.q_proj.weight", {"attn_q", NULL}},
             {"attn.k_proj.weight", {"attn_k", NULL}},
             {"attn.v_proj.weight", {"attn_v", NULL}},
             {"attn.o_proj.weight", {"attn_output", NULL}},
             {"n2.weight", {"ffn_norm", NULL}},
             {"mlp.gate_up.weight", {"ffn_gate", "ffn_up"}},
             {"mlp.down.weight", {"ffn_down", NULL}}};

bb_gguf_tensors bb_gguf_tensors_of(const bb_config *config, const bb_param *p) {
    bb_gguf_tensors t = {.count = 1};
    if (strncmp(p->name, "blocks.", 7) != 0) {
        (void)snprintf(t.names[0], sizeof t.names[0], "%s",
                       strcmp(p->name, "tok_emb.weight") == 0 ? "token_embd.weight" : "output_norm.weight");
        return t;
    }
    char *rest;
    long layer = strtol(p->name + 7, &rest, 10);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(rest + 1, names[i].name) != 0) continue;
        if (strcmp(names[i].parts[0], "attn_q") == 0) t.heads = config->n_head;
        if (strcmp(names[i].parts[0], "attn_k") == 0) t.heads = config->n_kv_head;
        for (t.count = 0; t.count < 2 && names[i].parts[t.count]; t.count++)
            (void)snprintf(t.names[t.count], sizeof t.names[0], "blk.%ld.%s.weight", layer, names[i].parts[t.count]);
    }
    return t;
}

static bool is_printable(int byte) { return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad); }

bb_gguf_token bb_gguf_byte_token(int byte) {
    int code = byte;
    if (!is_printable(byte)) { /* those that are not become U+0100 and so on, in order */
        code = 0x100;
        for (int b = 0; b < byte; b++) code += !is_printable(b);
    }
    bb_gguf_token t = {{(char)code}};
    if (code >= 0x80) {
        t.text[0] = (char)(0xc0 | code >> 6);
        t.text[1] = (char)(0x80 | (code & 0x3f));
    }
    return t;
}
