// SPDX-License-Identifier: MIT
#include "modelfile/export_hf_text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/config.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"

static char *text_of(json_t *json) {
    char *text = json ? bb_json_text(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    return text;
}

bool bb_hf_is_bitnet(const bb_exporter *e) { return strcmp(e->type, "bitnet") == 0; }

static const char *dtype_of(const bb_exporter *e) { return strcmp(e->type, "bf16") == 0 ? "bfloat16" : "float32"; }

/* Llama's default begin and end tokens are ordinary bytes here: null says that there are none. */
char *bb_hf_config(const bb_exporter *e) {
    const bb_config *c = &e->source.config;
    json_t *config =
        json_pack("{s:[s],s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:i,s:f,s:f,s:{s:s,s:f},s:b,s:b,s:b,s:f,s:n,s:n,s:n,s:s,s:s,s:b,"
                  "s:{s:b,s:s,s:s*}"
                  "}",
                  "architectures", "LlamaForCausalLM", "model_type", "llama", "vocab_size", c->vocab_size, "hidden_size",
                  c->d_model, "intermediate_size", c->d_ff, "num_hidden_layers", c->n_layer, "num_attention_heads", c->n_head,
                  "num_key_value_heads", c->n_kv_head, "head_dim", c->d_model / c->n_head, "hidden_act", "silu",
                  "max_position_embeddings", e->source.trained_length, "rms_norm_eps", c->norm_eps, "rope_theta", c->rope_base,
                  "rope_parameters", "rope_type", "default", "rope_theta", c->rope_base, "tie_word_embeddings", 1,
                  "attention_bias", 0, "mlp_bias", 0, "attention_dropout", 0.0, "bos_token_id", "eos_token_id", "pad_token_id",
                  "dtype", dtype_of(e), "torch_dtype", dtype_of(e), "use_cache", 1, BB_HF_OWN_KEY, "act_quant",
                  (int)c->act_quant, "ste", bb_ste_name(c->ste), BB_CHAT_TEMPLATE, e->chat_template);
    /* BitLinear reads codes at two bits and quantizes its inputs; the head stays as it is. */
    if (bb_hf_is_bitnet(e) &&
        json_object_set_new(config, "quantization_config",
                            json_pack("{s:s,s:s,s:s,s:[s]}", "quant_method", "bitnet", "linear_class", "bitlinear",
                                      "quantization_mode", "offline", "modules_to_not_convert", "lm_head")) != 0) {
        json_decref(config);
        return NULL;
    }
    return text_of(config);
}

char *bb_hf_generation_config(const bb_exporter *e) {
    (void)e;
    return text_of(json_pack("{s:n,s:n,s:n,s:b,s:i}", "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", 1,
                             "max_new_tokens", 256));
}

/* The UTF-8 character that ByteLevel assigns to a byte: printable Latin-1 characters map to themselves, the others to U+0100
 * and up (GPT-2's bytes_to_unicode). */
static void byte_character(int byte, int *next, char out[3]) {
    bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int code = itself ? byte : 256 + (*next)++;
    if (code < 128) {
        (void)snprintf(out, 3, "%c", code);
    } else {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        out[2] = 0;
    }
}

static json_t *byte_level(bool trim) {
    return json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", trim, "use_regex", 0);
}

/* Byte-pair encoding without merges leaves one token a byte. */
char *bb_hf_tokenizer(const bb_exporter *e) {
    (void)e;
    json_t *vocab = json_object();
    int next = 0;
    for (int byte = 0; byte < 256; byte++) {
        char name[3];
        byte_character(byte, &next, name);
        if (json_object_set_new(vocab, name, json_integer(byte)) != 0) {
            json_decref(vocab);
            return NULL;
        }
    }
    json_t *model = json_pack("{s:s,s:n,s:n,s:n,s:n,s:b,s:b,s:b,s:o,s:[]}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", 0, "vocab", vocab, "merges");
    return text_of(json_pack("{s:s,s:n,s:n,s:[],s:n,s:o,s:n,s:o,s:o}", "version", "1.0", "truncation", "padding",
                             "added_tokens", "normalizer", "pre_tokenizer", byte_level(false), "post_processor", "decoder",
                             byte_level(false), "model", model));
}

char *bb_hf_tokenizer_config(const bb_exporter *e) {
    char *jinja = e->chat_template ? bb_chat_template_jinja(e->chat_template) : NULL;
    if (e->chat_template && !jinja) return NULL;
    char *text = text_of(json_pack("{s:s,s:i,s:b,s:n,s:n,s:n,s:n,s:s*}", "tokenizer_class", "PreTrainedTokenizerFast",
                                   "model_max_length", e->source.trained_length, "clean_up_tokenization_spaces", 0, "bos_token",
                                   "eos_token", "unk_token", "pad_token", BB_CHAT_TEMPLATE, jinja));
    free(jinja);
    return text;
}
