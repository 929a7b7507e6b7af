// SPDX-License-Identifier: MIT
/* The model card written beside an exported model: what it is, what it was trained on and how, as far as the source tells. */
#ifndef BB_MODELFILE_MODEL_CARD_H
#define BB_MODELFILE_MODEL_CARD_H

#include "modelfile/exporter.h"

/* Returns malloc'd Markdown, or NULL if out of memory. */
char *bb_model_card_hf(const bb_exporter *e);
char *bb_model_card_gguf(const bb_exporter *e);

#endif
