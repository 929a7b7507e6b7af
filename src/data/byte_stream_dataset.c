// SPDX-License-Identifier: MIT
/* One file as a stream of bytes. */
#include "data/dataset.h"

bb_status bb_byte_stream_dataset_open(const char *path, int seq_len, uint64_t seed, int rank, int world_size, bb_dataset **out,
                                      bb_error *err) {
    bb_byte_source source;
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("path", path);
    BB_TRY(bb_byte_source_open_file(path, &source, err));
    const bb_dataset_options options = {.seq_len = seq_len, .rank = rank, .world_size = world_size, .seed = seed};
    return bb_dataset_create(&source, path, &options, out, err);
}
