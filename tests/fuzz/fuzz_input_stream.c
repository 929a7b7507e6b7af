// SPDX-License-Identifier: MIT
/* Any bytes as a plain or compressed text in any encoding: they are refused or read to an end. */
#include "data/input_stream.h"
#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { MOST = 1 << 24 }; /* bytes read of what may unpack to terabytes */
    static uint8_t buffer[1 << 12];
    bb_input_stream stream;
    bb_error err;
    if (bb_input_stream_open(fuzz_input_path(data, size), NULL, &stream, &err) != BB_OK) return 0;
    size_t read = 1;
    for (size_t total = 0; read > 0 && total < MOST; total += read)
        if (bb_input_stream_read(&stream, buffer, sizeof buffer, &read, &err) != BB_OK) break;
    bb_input_stream_close(&stream);
    return 0;
}
