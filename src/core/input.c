// SPDX-License-Identifier: MIT
#include "core/input.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

static bb_status set_path(const char *path, bb_input *out, bb_error *err) {
    *out = (bb_input){.path = strdup(path), .fd = -1};
    return out->path ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path);
}

bb_status bb_input_open_file(const char *path, bb_input *out, bb_error *err) {
    struct stat file;
    BB_TRY(set_path(path, out, err));
    BB_TRY(bb_file_open(path, &out->fd, &file, err));
    out->size = (uint64_t)file.st_size;
    return BB_OK;
}

bb_status bb_input_open_memory(const char *name, const void *data, size_t size, bb_input *out, bb_error *err) {
    BB_TRY(set_path(name, out, err));
    out->memory = data;
    out->size = size;
    return BB_OK;
}

void bb_input_close(bb_input *in) {
    if (in->fd >= 0) close(in->fd);
    free(in->path);
    *in = (bb_input){.fd = -1};
}

bb_status bb_input_read(const bb_input *in, uint64_t offset, void *data, size_t size, bb_error *err) {
    if (in->fd >= 0) return bb_file_read_at(in->fd, in->path, offset, data, size, err);
    if (offset > in->size || size > in->size - offset)
        return bb_fail(err, BB_ERR_DATA, "%s: expected %zu bytes at byte %llu, found its end at byte %llu", in->path, size,
                       (unsigned long long)offset, (unsigned long long)in->size);
    if (size > 0) memcpy(data, in->memory + offset, size);
    return BB_OK;
}
