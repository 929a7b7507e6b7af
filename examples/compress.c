// SPDX-License-Identifier: MIT
/* Compresses a file in memory with a model, and decompresses it again: compress MODEL FILE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitbyte.h"

#define CHECK(call)                                                                                                            \
    do {                                                                                                                       \
        if ((call) != BB_OK) {                                                                                                 \
            fprintf(stderr, "%s\n", error.message);                                                                            \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)

static bb_error error;

typedef struct buffer {
    uint8_t *bytes;
    size_t size;
} buffer;

static bool append(void *user, const uint8_t *bytes, size_t size) {
    buffer *b = user;
    uint8_t *larger = realloc(b->bytes, b->size + size);
    if (!larger) return false;
    b->bytes = larger;
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return true;
}

static buffer compress(bb_model *model, const char *text, size_t size) {
    buffer out = {NULL, 0};
    bb_compress_options options;
    bb_compress_options_default(&options);
    options.on_output = append;
    options.user = &out;

    bb_compressor *compressor;
    CHECK(bb_compressor_open(model, &options, &compressor, &error));
    CHECK(bb_compressor_write(compressor, (const uint8_t *)text, size, &error)); /* call it again for more input */
    CHECK(bb_compressor_finish(compressor, &error));
    bb_compressor_close(compressor);
    return out;
}

static buffer decompress(bb_model *model, buffer in) {
    buffer out = {NULL, 0};
    bb_compress_options options;
    bb_compress_options_default(&options);
    options.on_output = append;
    options.user = &out;

    bb_decompressor *decompressor;
    CHECK(bb_decompressor_open(model, &options, &decompressor, &error));
    CHECK(bb_decompressor_write(decompressor, in.bytes, in.size, &error));
    CHECK(bb_decompressor_finish(decompressor, &error));
    bb_decompressor_close(decompressor);
    return out;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: compress MODEL FILE\n");
        return 2;
    }
    bb_device *device;
    bb_model *model;
    char *text;
    size_t size;
    CHECK(bb_device_open("cpu", 0, &device, &error));
    CHECK(bb_model_load_for_inference(device, argv[1], &model, &error));
    CHECK(bb_read_text(argv[2], NULL, &text, &size, &error));

    buffer coded = compress(model, text, size), back = decompress(model, coded);
    bool same = back.size == size && (size == 0 || memcmp(back.bytes, text, size) == 0);
    printf("%zu bytes => %zu bytes => %s\n", size, coded.size, same ? "the same" : "ANOTHER TEXT");
    free(coded.bytes);
    free(back.bytes);
    bb_string_free(text);
    bb_model_free(model);
    bb_device_close(device);
    return same ? 0 : 1;
}
