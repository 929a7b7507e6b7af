// SPDX-License-Identifier: MIT
/* Type numbers and tokens that the GGUF reader and writer share. docs/FORMAT.md. */
#ifndef BB_MODELFILE_GGUF_NAMES_H
#define BB_MODELFILE_GGUF_NAMES_H

#include "modelfile/tensor_source.h"

#define BB_GGUF_CONFIG_KEY "bitbyte.config"               /* our configuration as JSON */
#define BB_GGUF_CHAT_TEMPLATE_KEY "bitbyte.chat_template" /* ours */
#define BB_GGUF_JINJA_KEY "tokenizer.chat_template"       /* everybody's */

enum { BB_GGUF_VERSION = 3, BB_GGUF_ALIGNMENT = 32 };

/* Types of metadata values. */
typedef enum bb_gguf_value {
    BB_GGUF_U8 = 0,
    BB_GGUF_I8,
    BB_GGUF_U16,
    BB_GGUF_I16,
    BB_GGUF_U32,
    BB_GGUF_I32,
    BB_GGUF_F32,
    BB_GGUF_BOOL,
    BB_GGUF_STRING,
    BB_GGUF_ARRAY,
    BB_GGUF_U64,
    BB_GGUF_I64,
    BB_GGUF_F64
} bb_gguf_value;

/* Convert between our element types and GGUF's type numbers; -1 if GGUF has no such type. */
int bb_gguf_type_number(bb_file_dtype type);
bool bb_gguf_type_of(uint32_t number, bb_file_dtype *out);

/* The character that represents a byte in the vocabulary: GPT-2's byte-to-unicode table, as UTF-8. */
typedef struct bb_gguf_token {
    char text[8];
} bb_gguf_token;
bb_gguf_token bb_gguf_byte_token(int byte);

#endif
