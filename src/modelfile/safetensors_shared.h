// SPDX-License-Identifier: MIT
/* Shared by the safetensors reader and writer. */
#ifndef BB_MODELFILE_SAFETENSORS_SHARED_H
#define BB_MODELFILE_SAFETENSORS_SHARED_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { BB_ST_LENGTH_BYTES = 8, BB_ST_MAX_HEADER_BYTES = 100000000 };

#define BB_ST_METADATA "__metadata__"
#define BB_ST_CHECKSUMS "tensor_xxh3" /* metadata key of the checksums */

/* A checksum as text in the file. */
typedef struct bb_st_sum_text {
    char text[17];
} bb_st_sum_text;
bb_st_sum_text bb_st_sum_format(uint64_t sum);
/* XXH3-64 of every other key and value of the metadata, each with its NUL, the keys in ascending order. False: no memory. */
bool bb_st_sum_metadata(const json_t *metadata, uint64_t *sum);

#endif
