// SPDX-License-Identifier: MIT
/* Builds files like those of torch.save in memory, from any pickle. */
#ifndef BB_TESTS_TORCH_ARCHIVE_H
#define BB_TESTS_TORCH_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <zip.h>

typedef struct torch_entry {
    const char *name;
    const void *data;
    size_t size;
    bool compressed;
} torch_entry;

/* An archive of these entries, to be freed; NULL on failure. */
static inline uint8_t *torch_archive(const torch_entry *entries, int count, size_t *size) {
    uint8_t *out = NULL;
    zip_error_t error;
    zip_stat_t st;
    zip_error_init(&error);
    zip_source_t *whole = zip_source_buffer_create(NULL, 0, 0, &error);
    zip_t *zip = whole ? zip_open_from_source(whole, ZIP_CREATE | ZIP_TRUNCATE, &error) : NULL;
    if (!zip) abort();
    zip_source_keep(whole);
    for (int i = 0; i < count; i++) {
        zip_source_t *source = zip_source_buffer(zip, entries[i].data, entries[i].size, 0);
        zip_int64_t at = source ? zip_file_add(zip, entries[i].name, source, 0) : -1;
        if (at < 0 ||
            zip_set_file_compression(zip, (zip_uint64_t)at, entries[i].compressed ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0) != 0)
            abort();
    }
    if (zip_close(zip) != 0 || zip_source_stat(whole, &st) != 0 || zip_source_open(whole) != 0) abort();
    out = malloc((size_t)st.size + 1);
    if (!out || zip_source_read(whole, out, st.size) != (zip_int64_t)st.size) abort();
    zip_source_close(whole);
    zip_source_free(whole);
    zip_error_fini(&error);
    *size = (size_t)st.size;
    return out;
}

/* With the pickle, and a storage "0" of 64 bytes. */
static inline uint8_t *torch_archive_of(const void *pickle, size_t pickle_size, size_t *size) {
    static const uint8_t storage[64] = {1, 2, 3};
    const torch_entry entries[] = {{"a/data.pkl", pickle, pickle_size, false}, {"a/data/0", storage, sizeof storage, false}};
    return torch_archive(entries, 2, size);
}

#endif
