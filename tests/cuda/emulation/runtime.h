// SPDX-License-Identifier: MIT
/* The runtime API: EMULATION_CARDS cards (2) of compute capability EMULATION_COMPUTE (9.0), whose memory is the host's, EMULATION_MEMORY bytes of it, full of 0xff when it is given
 * out. Each stream has its own queue, and work on it is done at once, unless what it needs is not there yet: an event of another
 * stream, or another process. With EMULATION_LAZY=1 it waits until somebody waits for it, as late as a card may run it; with
 * EMULATION_LAZY=N, each stream goes on a random way whenever something is put on any, by N as the seed, so that streams run ahead
 * of one another as far as their events let them. */
#ifndef BB_TESTS_CUDA_EMULATION_RUNTIME_H
#define BB_TESTS_CUDA_EMULATION_RUNTIME_H

#include <string>

#include "emulation/stream.h"
#include "emulation/threads.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorECCUncorrectable = 214,
    cudaErrorLaunchFailure = 719,
    cudaErrorUnknown = 999,
    cudaErrorNotReady = 600,
    cudaErrorStreamCaptureUnsupported = 900
};
struct emu_event {
    double time;
    int64_t recorded, completed; // how often
    emu_stream *stream;          // of the latest record
};
typedef emu_event *cudaEvent_t;
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum { cudaStreamCaptureModeThreadLocal = 1, cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef std::vector<std::function<void()>> *cudaGraph_t, *cudaGraphExec_t;
struct cudaUUID_t {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};

namespace emu {
enum { PROCESSORS = 3 };
inline int cards = getenv("EMULATION_CARDS") ? atoi(getenv("EMULATION_CARDS")) : 2;
inline std::vector<std::function<void()>> *capture;
inline std::map<const void *, size_t> smem_limit, allocated;
inline size_t memory = getenv("EMULATION_MEMORY") ? strtoull(getenv("EMULATION_MEMORY"), 0, 10) : (size_t)4 << 30, memory_used;
inline uint64_t lazy = getenv("EMULATION_LAZY") ? strtoull(getenv("EMULATION_LAZY"), 0, 10) : 0, chance = lazy;
inline cudaError_t last_error;
inline cudaError_t fail(cudaError_t e) { return last_error = e; }
// EMULATION_FAULT: no_driver; old_driver; no_card; busy (another process has the card); ecc@N or lost@N (at the Nth piece of work: from
// then on every call fails, and nothing is computed or copied).
inline std::string fault = getenv("EMULATION_FAULT") ? getenv("EMULATION_FAULT") : "";
inline int64_t works_until_fault =
    fault.find('@') == std::string::npos ? -1 : strtoll(fault.c_str() + fault.find('@') + 1, nullptr, 10);
inline cudaError_t broken = cudaSuccess;
inline cudaError_t state() { return broken == cudaSuccess ? cudaSuccess : fail(broken); }
inline void count_work() {
    if (works_until_fault > 0 && --works_until_fault == 0)
        broken = fault[0] == 'e' ? cudaErrorECCUncorrectable : cudaErrorUnknown;
}
inline void submit(emu_stream *stream, emu_work work);
inline emu_stream default_stream = {submit, {}, 0};
inline std::vector<emu_stream *> streams = {&default_stream};
inline emu_stream *stream_of(cudaStream_t s) { return s ? s : &default_stream; }
inline void step(emu_stream *s) {
    emu_work work = std::move(s->queue.front());
    s->queue.pop_front();
    count_work();
    if (broken == cudaSuccess) work.run();
}
inline bool progress(emu_stream *s) {
    bool moved = false;
    for (; !s->queue.empty() && (!s->queue.front().ready || s->queue.front().ready()); moved = true) step(s);
    return moved;
}
inline void progress_all() {
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < streams.size(); i++) moved = progress(streams[i]) || moved;
    }
}
inline void progress_by_chance() { // a stream stays behind for some micro-batches, or goes on as far as it may
    for (size_t i = 0; i < streams.size(); i++) {
        if (streams[i]->stalled-- > 0) continue;
        progress(streams[i]);
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        streams[i]->stalled = (int64_t)(chance >> 63 ? chance >> 51 & 4095 : chance >> 51 & 15);
    }
}
inline cudaError_t drain(emu_stream *s) {
    std::lock_guard<std::recursive_mutex> lock(one_at_a_time);
    if (capture) return fail(cudaErrorStreamCaptureUnsupported);
    while (!s->queue.empty()) step(s);
    return state();
}
inline cudaError_t drain_all() {
    cudaError_t e = cudaSuccess;
    for (size_t i = 0; i < streams.size() && e == cudaSuccess; i++) e = drain(streams[i]);
    return e;
}
inline void submit(emu_stream *stream, emu_work work) {
    std::lock_guard<std::recursive_mutex> lock(one_at_a_time);
    if (capture) {
        capture->push_back(work.run);
        return;
    }
    stream->queue.push_back(std::move(work));
    if (!lazy) progress(stream);
    if (lazy > 1) progress_by_chance();
}
inline cudaError_t submit(cudaStream_t s, std::function<void()> f) {
    submit(stream_of(s), emu_work{std::move(f), nullptr});
    return state();
}
template <class... P, class... A>
void launch(const char *name, void (*k)(P...), dim3 g, dim3 b, size_t smem, cudaStream_t stream, A... a) {
    size_t limit = smem_limit.count((void *)k) ? smem_limit[(void *)k] : 48 << 10, threads = (size_t)b.x * b.y * b.z;
    if (smem > limit || (size_t)g.x * g.y * g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535 || threads == 0 ||
        threads > MAXT) {
        fail(cudaErrorInvalidConfiguration);
        return;
    }
    struct Call {
        void (*k)(P...);
        std::tuple<P...> args;
    } c{k, std::tuple<P...>(a...)};
    submit(stream, [=]() mutable {
        run_grid(
            name, g, b, smem,
            [](void *p) {
                Call &call = *(Call *)p;
                std::apply(call.k, call.args);
            },
            &c);
    });
}
} // namespace emu

inline cudaError_t cudaMallocBytes(void **p, size_t n) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    if (emu::capture) return emu::fail(cudaErrorStreamCaptureUnsupported);
    size_t rounded = (n + 255) & ~(size_t)255;
    *p = nullptr;
    if (emu::broken != cudaSuccess) return emu::state();
    if (rounded < n || rounded > emu::memory - emu::memory_used || !(*p = aligned_alloc(256, rounded)))
        return emu::fail(cudaErrorMemoryAllocation);
    emu::memory_used += rounded;
    emu::allocated[*p] = rounded;
    memset(*p, 0xff, n);
    EMULATE_ASAN(__asan_poison_memory_region((char *)*p + n, rounded - n);)
    return cudaSuccess;
}
template <class T> cudaError_t cudaMalloc(T **p, size_t n) { return cudaMallocBytes((void **)p, n); }
inline cudaError_t cudaFree(void *p) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    cudaError_t e = emu::drain_all();
    if (!p) return e;
    auto at = emu::allocated.find(p);
    if (at == emu::allocated.end()) return emu::fail(cudaErrorInvalidValue);
    EMULATE_ASAN(__asan_unpoison_memory_region(p, at->second);)
    emu::memory_used -= at->second;
    memset(p, 0xff, at->second); // who still reads it does not get what was there
    emu::allocated.erase(at);
    free(p);
    return e;
}
inline cudaError_t cudaHostAlloc(void **p, size_t n, unsigned) {
    return (*p = malloc(n)) ? cudaSuccess : emu::fail(cudaErrorMemoryAllocation);
}
inline cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *total = emu::memory;
    *available = emu::memory - emu::memory_used;
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, int, cudaStream_t stream) {
    return emu::submit(stream, [=] { memcpy(d, s, n); });
}
inline cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t stream) {
    return emu::submit(stream, [=] { memset(d, v, n); });
}
inline cudaError_t cudaGetDeviceCount(int *count) {
    *count = emu::cards;
    if (emu::fault == "no_driver" || emu::fault == "old_driver") return emu::fail(cudaErrorInsufficientDriver);
    return emu::fault == "no_card" ? emu::fail(cudaErrorNoDevice) : cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    return device >= 0 && device < emu::cards ? cudaSuccess : emu::fail(cudaErrorInvalidDevice);
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    if (device < 0 || device >= emu::cards) return emu::fail(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated card");
    p->uuid.bytes[15] = (char)(device + 1);
    p->totalGlobalMem = emu::memory;
    p->major = (int)emu::compute;
    p->minor = (int)lround(emu::compute * 10) % 10;
    p->multiProcessorCount = emu::PROCESSORS;
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int *version) {
    *version = emu::fault == "no_driver" ? 0 : emu::fault == "old_driver" ? 12020 : 13000;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    if (emu::fault == "busy") return emu::fail(cudaErrorDevicesUnavailable);
    emu::streams.push_back(*s = new emu_stream{emu::submit, {}, 0});
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    cudaError_t e = emu::drain(s);
    emu::streams.erase(std::find(emu::streams.begin(), emu::streams.end(), s));
    delete s;
    return e;
}
extern "C" {
inline int64_t emulated_waits; // for a stream by the host; for tests
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    emulated_waits++;
    return emu::drain(emu::stream_of(s));
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new emu_event{};
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    while (e->completed < e->recorded && !e->stream->queue.empty()) emu::step(e->stream);
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    cudaEventSynchronize(e);
    delete e;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    int64_t number = ++e->recorded;
    e->stream = emu::stream_of(s);
    return emu::submit(s, [=] {
        e->time = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        e->completed = number;
    });
}
inline cudaError_t cudaEventQuery(cudaEvent_t e) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    emu::progress_all();
    return e->completed == e->recorded ? cudaSuccess : emu::fail(cudaErrorNotReady);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    std::lock_guard<std::recursive_mutex> lock(emu::one_at_a_time);
    int64_t number = e->recorded;
    emu_stream *other = e->stream;
    if (e->completed < number)
        emu::submit(emu::stream_of(s), emu_work{[=] {
                                                    while (e->completed < number) emu::step(other);
                                                },
                                                [=] { return e->completed >= number; }});
    return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = (float)((b->time - a->time) * 1e3);
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return std::exchange(emu::last_error, cudaSuccess); }
inline const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorDevicesUnavailable: return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorUnknown: return "unknown error";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return "invalid argument";
    }
}
template <class F> cudaError_t cudaFuncSetAttribute(F *f, int, int n) {
    double c = emu::compute; // what a block may have
    if (n > (c < 8 ? 64 : c < 8.5 ? 163 : c < 9 ? 99 : 227) << 10) return emu::fail(cudaErrorInvalidValue);
    emu::smem_limit[(const void *)f] = (size_t)n;
    return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
    emu::capture = new std::vector<std::function<void()>>;
    return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g) {
    *g = std::exchange(emu::capture, nullptr);
    return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    *x = new std::vector<std::function<void()>>(*g);
    return cudaSuccess;
}
extern "C" {
inline int64_t emulated_graph_launches; // for tests
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    emulated_graph_launches++;
    for (auto &f : *x) emu::submit(s, f);
    return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
#define cudaGraphExecDestroy cudaGraphDestroy

#endif
