// SPDX-License-Identifier: MIT
/* A stream, as the stand-ins for NVIDIA's libraries see it, which are loaded at run time: what they compute is put on it. */
#ifndef BB_TESTS_CUDA_EMULATION_STREAM_H
#define BB_TESTS_CUDA_EMULATION_STREAM_H

#include <functional>

struct emu_stream {
    void (*submit)(std::function<void()> work);
};
typedef emu_stream *cudaStream_t;

#endif
