// SPDX-License-Identifier: MIT
/* The formats that can be written. Each is defined in an export_*.c. */
#ifndef BB_MODELFILE_EXPORT_FORMATS_H
#define BB_MODELFILE_EXPORT_FORMATS_H

#include "modelfile/exporter.h"

extern const bb_export_format bb_export_packed;      /* ternary weights at two bits */
extern const bb_export_format bb_export_bitbyte;     /* our model file: f32 masters */
extern const bb_export_format bb_export_safetensors; /* the PyTorch original's state dictionary */
extern const bb_export_format bb_export_gguf;        /* llama.cpp's */
extern const bb_export_format bb_export_hf;          /* a folder for Hugging Face transformers */

#endif
