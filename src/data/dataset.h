// SPDX-License-Identifier: MIT
/* Numbered windows over files. Datasets of shards and of a stream differ only in how they find files. */
#ifndef BB_DATA_DATASET_H
#define BB_DATA_DATASET_H

#include "data/byte_source.h"

struct bb_dataset {
    bb_byte_source source;
    char *name; /* as the caller gave it, for messages */
    /* (source.count + 1): number of windows before file i in this epoch; the last entry is the total. Sampling with replacement
     * counts every offset at which a window fits. */
    uint64_t *first_windows;
    uint8_t *window; /* (seq_len + 1) bytes of the window being read */
    int seq_len, rank, world_size;
    uint64_t seed, position; /* position: samples consumed by all ranks together */
    bb_sampling sampling;
    uint64_t offsets; /* offsets at which a window fits, over all files: the number of samples of seq_len epochs */
    /* The epoch of first_windows and epoch_key. A cache, not state. epoch_samples 0: no epoch. */
    uint64_t epoch, epoch_first, epoch_samples, epoch_offset, epoch_key; /* epoch_first: number of its first sample */
    bb_dataset_info info;
    char warning[512]; /* text of info.warning */
};

typedef struct bb_dataset_options {
    int seq_len, rank, world_size;
    uint64_t seed;
} bb_dataset_options;

/* Takes ownership of the source, even on failure. */
bb_status bb_dataset_create(bb_byte_source *source, const char *name, const bb_dataset_options *options, bb_dataset **out,
                            bb_error *err);
/* The default is BB_SAMPLING_EPOCHS. */
void bb_dataset_set_sampling(bb_dataset *dataset, bb_sampling sampling);
/* Returns where sample n begins; seq_len + 1 bytes follow. */
typedef struct bb_window {
    int file;
    int64_t offset;
} bb_window;
bb_window bb_dataset_sample(bb_dataset *dataset, uint64_t n);

#endif
