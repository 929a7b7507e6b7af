// SPDX-License-Identifier: MIT
/* Hugging Face folders: config.json, and model.safetensors or model.safetensors.index.json with the shards it names. */
#ifndef BB_MODELFILE_HF_H
#define BB_MODELFILE_HF_H

#include "modelfile/tensor_source.h"

#define BB_HF_CONFIG "config.json" /* also the metadata key of its text */
#define BB_HF_WEIGHTS "model.safetensors"
#define BB_HF_INDEX "model.safetensors.index.json"
#define BB_HF_LENGTH "max_position_embeddings"      /* metadata key of this number in config.json */
#define BB_HF_CHAT_TEMPLATE "bitbyte.chat_template" /* metadata key of this text in config.json */

/* Access to the files of a folder. */
typedef struct bb_hf_files {
    const char *path; /* path of the folder, for messages */
    /* Opens a file if it exists, and sets *found. */
    bb_status (*open)(void *user, const char *name, bool *found, bb_input *out, bb_error *err);
    void *user;
} bb_hf_files;

bb_status bb_hf_open(const bb_hf_files *files, bb_tensor_source **out, bb_error *err);
/* Opens a folder on disk. A link that leads out of the folder is BB_ERR_FORMAT. */
bb_status bb_hf_open_folder(const char *path, bb_tensor_source **out, bb_error *err);

/* Returns whether a file begins like JSON rather than safetensors, whose fifth to eighth bytes are zero. */
bool bb_hf_matches(const uint8_t *head, size_t size);

#endif
