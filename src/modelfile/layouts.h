// SPDX-License-Identifier: MIT
/* The known layouts. Each is defined in a layout_*.c. */
#ifndef BB_MODELFILE_LAYOUTS_H
#define BB_MODELFILE_LAYOUTS_H

#include "modelfile/model_source.h"

#define BB_MODEL_FILE_FORMAT "bitbyte"       /* __metadata__.format: ternary tensors are f32 masters */
#define BB_PACKED_FILE_FORMAT "bitbyte-2bit" /* ternary tensors are codes, each with a scale */
#define BB_SCALE_SUFFIX "_scale"             /* suffix of the tensor with a packed tensor's scale or scales */
#define BB_HF_OWN_KEY "bitbyte"              /* key in an exported config.json for settings that Llama's keys cannot express */

extern const bb_model_layout bb_layout_bitbyte;  /* our checkpoints and model files */
extern const bb_model_layout bb_layout_packed;   /* what export writes */
extern const bb_model_layout bb_layout_original; /* the PyTorch original's files */
extern const bb_model_layout bb_layout_gguf;     /* llama.cpp's files with the llama architecture */

extern const bb_model_layout bb_layout_hf; /* folders for Hugging Face transformers with LlamaForCausalLM */

/* Returns the trained length from the metadata under `key` (NULL: "trained_length"), or the default. */
int bb_layout_trained_length(const bb_tensor_source *s, const char *key);

/* Another program's names for the parameters; ".weight" follows each name. */
typedef struct bb_naming {
    const char *embedding, *norm, *head; /* names of tok_emb, norm_f, and the head tied to tok_emb */
    const char *blocks;                  /* prefix of the tensors of a block, before its number: "blk." */
    const char *parts[BB_PARAMS_PER_BLOCK][2];
    bool interleaved;                  /* the rows of q and k are interleaved, see bb_weight */
    bool (*ignores)(const char *name); /* returns whether a tensor can be ignored; NULL: none can */
} bb_naming;
extern const bb_naming bb_gguf_naming, bb_hf_naming;

/* The tensors that make up a parameter, stacked along the rows. */
typedef struct bb_tensor_names {
    char text[2][64];
    int count;
    int interleaved_heads; /* see bb_weight */
} bb_tensor_names;
bb_tensor_names bb_naming_tensors(const bb_naming *naming, const bb_config *config, const bb_param *p);
/* Finds the parts of a parameter; they may have any numeric type. */
bb_status bb_naming_find(const bb_naming *naming, const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err);
/* Fails with BB_ERR_UNSUPPORTED if the file has a tensor that the model does not use (a bias, an expert): it would change what
 * the model computes. */
bb_status bb_naming_check_others(const bb_naming *naming, const bb_tensor_source *s, const bb_config *c, bb_error *err);
/* Checks that head and embedding have the same values if the file has both. Either may be NULL. */
bb_status bb_layout_check_tied(const bb_tensor_source *s, const bb_file_tensor *embedding, const bb_file_tensor *head,
                               bb_error *err);

#endif
