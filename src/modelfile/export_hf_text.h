// SPDX-License-Identifier: MIT
/* Generates the text files of a Hugging Face transformers folder. Each function returns malloc'd text, or NULL if out of
 * memory. */
#ifndef BB_MODELFILE_EXPORT_HF_TEXT_H
#define BB_MODELFILE_EXPORT_HF_TEXT_H

#include "modelfile/exporter.h"

bool bb_hf_is_bitnet(const bb_exporter *e); /* type bitnet: 2-bit codes, quantized inputs */

char *bb_hf_config(const bb_exporter *e);            /* config.json */
char *bb_hf_generation_config(const bb_exporter *e); /* generation_config.json */
char *bb_hf_tokenizer(const bb_exporter *e);         /* tokenizer.json: token i is byte i */
char *bb_hf_tokenizer_config(const bb_exporter *e);  /* tokenizer_config.json */

#endif
