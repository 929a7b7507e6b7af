// SPDX-License-Identifier: MIT
/* Any bytes as a compressed stream, and as the blocks behind a header of a model that is there: refused, or decoded to as many bytes
 * as the stream says. Long blocks of the model are left out: they only take time. */
#include <stdlib.h>
#include <string.h>

#include "coding/stream.h"

enum { LONGEST = 400 };

static bb_model *tiny_model(void) {
    static bb_model *model;
    const bb_config config = {.vocab_size = 256,
                              .n_layer = 1,
                              .d_model = 8,
                              .n_head = 1,
                              .n_kv_head = 1,
                              .d_ff = 8,
                              .rope_base = 1e4,
                              .norm_eps = 1e-6,
                              .act_quant = true};
    bb_device *device;
    bb_error err;
    if (model) return model;
    if (bb_device_open("cpu", 1, &device, &err) != BB_OK || bb_model_create(device, &config, 1, &model, &err) != BB_OK) abort();
    return model;
}

static bool count(void *user, const uint8_t *bytes, size_t size) {
    (void)bytes;
    *(size_t *)user += size;
    return true;
}

static void decode(const uint8_t *header, size_t header_size, const uint8_t *data, size_t size) {
    bb_decompressor *d;
    bb_error err;
    size_t given = 0;
    bb_compress_options o;
    bb_compress_options_default(&o);
    o.on_output = count;
    o.user = &given;
    if (bb_decompressor_open(tiny_model(), &o, &d, &err) != BB_OK) abort();
    bb_status status = bb_decompressor_write(d, header, header_size, &err);
    for (size_t at = 0; at < size && status == BB_OK; at += 7)
        status = bb_decompressor_write(d, data + at, size - at < 7 ? size - at : 7, &err);
    if (status == BB_OK) (void)bb_decompressor_finish(d, &err);
    bb_decompressor_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t bytes[BB_STREAM_HEADER_BYTES];
    bb_stream_header header = {.block_bits = BB_STREAM_MIN_BLOCK_BITS, .window = 16};
    bb_stream_block block;
    bb_error err;
    decode(data, 0, data, size);
    if (bb_model_hash(tiny_model(), header.model, &err) != BB_OK) abort();
    bb_stream_write_header(&header, bytes);
    for (size_t at = 0; at + BB_STREAM_END_BYTES <= size;) {
        size_t head = bb_stream_block_bytes(data[at]);
        if (head == 0 || bb_stream_read_block(data + at, header.block_bits, &block, &err) != BB_OK) break;
        if (block.kind == BB_BLOCK_MODEL && block.size > LONGEST) return 0;
        at += head + block.coded;
    }
    decode(bytes, sizeof bytes, data, size);
    return 0;
}
