// SPDX-License-Identifier: MIT
/* A stream, as the stand-ins for NVIDIA's libraries see it, which are loaded at run time: what they compute is put on it. */
#ifndef BB_TESTS_CUDA_EMULATION_STREAM_H
#define BB_TESTS_CUDA_EMULATION_STREAM_H

#include <deque>
#include <functional>

struct emu_work {
    std::function<void()> run;   // may wait for what happens elsewhere,
    std::function<bool()> ready; // unless this, where it is given, says that it need not
};

struct emu_stream {
    void (*submit)(emu_stream *stream, emu_work work);
    std::deque<emu_work> queue;
    int64_t stalled; // EMULATION_LAZY: for so many further pieces of work
};
typedef emu_stream *cudaStream_t;

#endif
