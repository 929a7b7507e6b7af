// SPDX-License-Identifier: MIT
/* Any bytes as a file of torch.save, and as the pickle in one (a zip archive has checksums, which mutations break): it is refused,
 * or all of its tensors can be read or are refused. */
#include "../torch_archive.h"
#include "fuzz_source.h"
#include "modelfile/torch_pt.h"

static void read_all(const uint8_t *data, size_t size) {
    bb_input input;
    bb_tensor_source *s;
    bb_error err;
    if (bb_input_open_memory("fuzz", data, size, &input, &err) != BB_OK) abort();
    if (bb_torch_pt_open_input(&input, &s, &err) == BB_OK) fuzz_source(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t archive_size = 0;
    read_all(data, size);
    uint8_t *archive = torch_archive_of(data, size, &archive_size);
    read_all(archive, archive_size);
    free(archive);
    return 0;
}
