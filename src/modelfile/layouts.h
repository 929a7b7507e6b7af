// SPDX-License-Identifier: MIT
/* The layouts that are known; each stands in a layout_*.c. */
#ifndef BB_MODELFILE_LAYOUTS_H
#define BB_MODELFILE_LAYOUTS_H

#include "modelfile/model_source.h"

#define BB_MODEL_FILE_FORMAT "bitbyte"       /* __metadata__.format: ternary tensors are f32 masters */
#define BB_PACKED_FILE_FORMAT "bitbyte-2bit" /* ternary tensors are codes, each with a scale */
#define BB_SCALE_SUFFIX "_scale"             /* of the name of a packed tensor's scale or scales */
#define BB_HF_OWN_KEY "bitbyte"              /* of an exported folder's config.json: what Llama's keys do not say */

extern const bb_model_layout bb_layout_bitbyte;  /* checkpoints and model files of ours */
extern const bb_model_layout bb_layout_packed;   /* what export writes */
extern const bb_model_layout bb_layout_original; /* the PyTorch original's */
extern const bb_model_layout bb_layout_gguf;     /* llama.cpp's, of the llama architecture */

extern const bb_model_layout bb_layout_hf; /* a folder for Hugging Face transformers, of LlamaForCausalLM */

/* The length under a key of the metadata (NULL: "trained_length"), or the default. */
int bb_layout_trained_length(const bb_tensor_source *s, const char *key);

/* What another program calls the parameters; ".weight" follows each name. */
typedef struct bb_naming {
    const char *embedding, *norm, *head; /* tok_emb, norm_f, and what is tied to tok_emb */
    const char *blocks;                  /* what the names of a block's tensors begin with, before its number: "blk." */
    const char *parts[BB_PARAMS_PER_BLOCK][2];
    bool interleaved;                      /* q's and k's rows, see bb_weight */
    bool (*passes_over)(const char *name); /* tensors without a meaning of their own; NULL: there are none */
} bb_naming;
extern const bb_naming bb_gguf_naming, bb_hf_naming;

/* The tensors that make up a parameter, one below the other. */
typedef struct bb_tensor_names {
    char text[2][64];
    int count;
    int interleaved_heads; /* see bb_weight */
} bb_tensor_names;
bb_tensor_names bb_naming_of(const bb_naming *naming, const bb_config *config, const bb_param *p);
/* The parts of a parameter, of any type of numbers. */
bb_status bb_naming_find(const bb_naming *naming, const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err);
/* BB_ERR_UNSUPPORTED for a tensor that the model has no place for (a bias, an expert): it would change what the model computes. */
bb_status bb_naming_check_others(const bb_naming *naming, const bb_tensor_source *s, const bb_config *c, bb_error *err);
/* The head is the embedding: where the file has both, they are the same numbers. Either may be NULL. */
bb_status bb_layout_check_tied(const bb_tensor_source *s, const bb_file_tensor *embedding, const bb_file_tensor *head,
                               bb_error *err);

#endif
