// SPDX-License-Identifier: MIT
/* Chat templates in model files: docs/FORMAT.md, *Chat template*. */
#ifndef BB_MODELFILE_CHAT_TEMPLATE_H
#define BB_MODELFILE_CHAT_TEMPLATE_H

#include "model/model.h"

#define BB_CHAT_TEMPLATE "chat_template" /* the metadata's key in safetensors, and in the own keys of other formats */

/* Takes over what a file has (NULL: nothing), unchecked: who uses it checks it. */
bb_status bb_model_copy_chat_template(bb_model *model, const char *chat_template, bb_error *err);
/* The same template for Jinja, which llama.cpp and transformers use, malloc'd. NULL: out of memory. */
char *bb_chat_template_jinja(const char *chat_template);

#endif
