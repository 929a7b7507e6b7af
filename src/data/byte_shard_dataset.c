// SPDX-License-Identifier: MIT
/* Shards of raw bytes: the files of a directory or a glob, or one file. */
#include "data/dataset.h"

bb_status bb_byte_shard_dataset_open(const char *data, int seq_len, uint64_t seed, int rank, int world_size, bb_dataset **out,
                                     bb_error *err) {
    bb_byte_source source;
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("data", data);
    BB_TRY(bb_byte_source_open(data, BB_BYTES_TRAINING, &source, err));
    const bb_dataset_options options = {.seq_len = seq_len, .rank = rank, .world_size = world_size, .seed = seed};
    return bb_dataset_create(&source, data, &options, out, err);
}
