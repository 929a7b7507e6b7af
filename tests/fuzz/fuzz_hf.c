// SPDX-License-Identifier: MIT
/* Any bytes as a Hugging Face folder: config.json, the index, and two shards, the header and the data of each apart; a byte 0xff ends
 * each of the first four parts. With an empty index the first shard is model.safetensors. The folder is refused, or its tensors can be read. */
#include <string.h>

#include "fuzz_source.h"
#include "modelfile/hf.h"

enum { CONFIG, INDEX, A_HEADER, A_DATA, B_HEADER, B_DATA, PARTS };

typedef struct folder {
    const uint8_t *parts[PARTS];
    size_t sizes[PARTS];
    uint8_t *shards[2];
    size_t shard_sizes[2];
} folder;

static void make_shard(folder *f, int shard) {
    int header = shard ? B_HEADER : A_HEADER;
    uint64_t length = f->sizes[header];
    size_t size = sizeof length + f->sizes[header] + f->sizes[header + 1];
    uint8_t *file = f->shards[shard] = malloc(size);
    if (!file) abort();
    f->shard_sizes[shard] = size;
    memcpy(file, &length, sizeof length);
    memcpy(file + sizeof length, f->parts[header], f->sizes[header]);
    memcpy(file + sizeof length + length, f->parts[header + 1], f->sizes[header + 1]);
}

static bb_status open_part(void *user, const char *name, bool *found, bb_input *out, bb_error *err) {
    const folder *f = user;
    *found = true;
    if (strcmp(name, BB_HF_CONFIG) == 0) return bb_input_open_memory(name, f->parts[CONFIG], f->sizes[CONFIG], out, err);
    if (strcmp(name, BB_HF_INDEX) == 0 && f->sizes[INDEX])
        return bb_input_open_memory(name, f->parts[INDEX], f->sizes[INDEX], out, err);
    if (strcmp(name, f->sizes[INDEX] ? "a.safetensors" : BB_HF_WEIGHTS) == 0)
        return bb_input_open_memory(name, f->shards[0], f->shard_sizes[0], out, err);
    if (strcmp(name, "b.safetensors") == 0) return bb_input_open_memory(name, f->shards[1], f->shard_sizes[1], out, err);
    if (strchr(name, '/')) abort(); /* only names in the folder itself are asked for */
    *found = false;
    return BB_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t nothing[1];
    folder f = {.parts = {nothing}};
    bb_tensor_source *s;
    bb_error err;
    for (int i = 0; i < PARTS; i++) {
        const uint8_t *end = size && i < B_DATA ? memchr(data, 0xff, size) : NULL;
        f.parts[i] = size ? data : nothing;
        f.sizes[i] = end ? (size_t)(end - data) : size;
        size_t taken = end ? f.sizes[i] + 1 : size;
        data += taken;
        size -= taken;
    }
    make_shard(&f, 0);
    make_shard(&f, 1);
    bb_hf_files files = {.path = "fuzz", .open = open_part, .user = &f};
    if (bb_hf_open(&files, &s, &err) == BB_OK) fuzz_source(s);
    free(f.shards[0]);
    free(f.shards[1]);
    return 0;
}
