// SPDX-License-Identifier: MIT
/* The model card that stands beside an exported model: what it is, what it was trained on and how, as far as the source says. */
#ifndef BB_MODELFILE_MODEL_CARD_H
#define BB_MODELFILE_MODEL_CARD_H

#include "modelfile/exporter.h"

/* Markdown, malloc'd; NULL: no memory. */
char *bb_model_card_hf(const bb_exporter *e);
char *bb_model_card_gguf(const bb_exporter *e);

#endif
