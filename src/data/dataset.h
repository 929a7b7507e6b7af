// SPDX-License-Identifier: MIT
/* What both datasets are: windows over files, found by number. Shards and a stream differ in how files are found. */
#ifndef BB_DATA_DATASET_H
#define BB_DATA_DATASET_H

#include "data/byte_source.h"

struct bb_dataset {
    bb_byte_source source;
    char *name;              /* as the caller gave it, for messages */
    uint64_t *first_windows; /* (source.count + 1): windows before file i, in this epoch; the last is their total. With
                                replacement: every offset at which a window fits */
    uint8_t *window;         /* (seq_len + 1), the one being read */
    int seq_len, rank, world_size;
    uint64_t seed, position; /* position: samples seen by the whole job */
    bb_sampling sampling;
    uint64_t offsets; /* at which a window fits, over all files: what seq_len epochs hold */
    /* The epoch that first_windows and epoch_key are of; a cache, not state. epoch_samples 0: of none. */
    uint64_t epoch, epoch_first, epoch_samples, epoch_offset, epoch_key; /* epoch_first: number of its first sample */
    bb_dataset_info info;
    char warning[512]; /* where info.warning points, when it does */
};

typedef struct bb_dataset_options {
    int seq_len, rank, world_size;
    uint64_t seed;
} bb_dataset_options;

/* Takes the source over, also when it fails. */
bb_status bb_dataset_create(bb_byte_source *source, const char *name, const bb_dataset_options *options, bb_dataset **out,
                            bb_error *err);
/* BB_SAMPLING_EPOCHS until this is called. */
void bb_dataset_set_sampling(bb_dataset *dataset, bb_sampling sampling);
/* Where sample number n begins; seq_len + 1 bytes stand there. */
typedef struct bb_window {
    int file;
    int64_t offset;
} bb_window;
bb_window bb_dataset_sample(bb_dataset *dataset, uint64_t n);

#endif
