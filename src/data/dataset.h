// SPDX-License-Identifier: MIT
/* What both datasets are: windows over files, drawn by number. Shards and a stream differ in how files are found. */
#ifndef BB_DATA_DATASET_H
#define BB_DATA_DATASET_H

#include "data/byte_source.h"

struct bb_dataset {
    bb_byte_source source;
    char *name;              /* as the caller gave it, for messages */
    uint64_t *first_windows; /* (source.count + 1): windows before file i; the last is their total. Windows are numbered
                                file by file, by offset: a file of n bytes holds n - seq_len of them, or none */
    uint8_t *window;         /* (seq_len + 1), the one being read */
    int seq_len, rank, world_size;
    uint64_t seed, position; /* position: samples seen by the whole job */
    bb_dataset_info info;
    char warning[512]; /* where info.warning points, when it does */
};

/* Takes the source over, also when it fails. */
bb_status bb_dataset_create(bb_byte_source *source, const char *name, int seq_len, uint64_t seed, int rank, int world_size,
                            bb_dataset **out, bb_error *err);
/* Where sample number n begins; seq_len + 1 bytes stand there. */
typedef struct bb_window {
    int file;
    int64_t offset;
} bb_window;
bb_window bb_dataset_sample(const bb_dataset *dataset, uint64_t n);

#endif
