// SPDX-License-Identifier: MIT
/* The runtime API: EMULATION_CARDS cards (2), whose memory is the host's, EMULATION_MEMORY bytes of it, full of 0xff when it is given out. With
 * EMULATION_LAZY=1 what is put on a stream waits there until somebody waits for it, as late as a card may run it. */
#ifndef BB_TESTS_CUDA_EMULATION_RUNTIME_H
#define BB_TESTS_CUDA_EMULATION_RUNTIME_H

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
    cudaErrorStreamCaptureUnsupported = 900
};
typedef double *cudaEvent_t;
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum { cudaStreamCaptureModeGlobal = 0, cudaStreamNonBlocking = 1 };
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
inline std::vector<std::function<void()>> deferred, *capture;
inline std::map<const void *, size_t> smem_limit, allocated;
inline size_t memory = getenv("EMULATION_MEMORY") ? strtoull(getenv("EMULATION_MEMORY"), 0, 10) : (size_t)4 << 30, memory_used;
inline bool lazy = getenv("EMULATION_LAZY") != nullptr;
inline cudaError_t last_error;
inline cudaError_t fail(cudaError_t e) { return last_error = e; }
inline cudaError_t drain() {
    std::lock_guard<std::recursive_mutex> lock(one_at_a_time);
    if (capture) return fail(cudaErrorStreamCaptureUnsupported);
    auto t = std::move(deferred);
    deferred.clear();
    for (auto &f : t) f();
    return cudaSuccess;
}
inline cudaError_t submit(std::function<void()> f) {
    std::lock_guard<std::recursive_mutex> lock(one_at_a_time);
    if (capture)
        capture->push_back(f);
    else if (lazy)
        deferred.push_back(f);
    else
        f();
    return cudaSuccess;
}
template <class... P, class... A>
void launch(const char *name, void (*k)(P...), dim3 g, dim3 b, size_t smem, cudaStream_t, A... a) {
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
    submit([=]() mutable {
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
    cudaError_t e = emu::drain();
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
inline cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *total = emu::memory;
    *available = emu::memory - emu::memory_used;
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, int, cudaStream_t) {
    return emu::submit([=] { memcpy(d, s, n); });
}
inline cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t) {
    return emu::submit([=] { memset(d, v, n); });
}
inline cudaError_t cudaGetDeviceCount(int *count) {
    *count = emu::cards;
    return cudaSuccess;
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
    p->major = 9;
    p->multiProcessorCount = emu::PROCESSORS;
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    static emu_stream stream = {[](std::function<void()> f) { emu::submit(std::move(f)); }};
    *s = &stream;
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return emu::drain(); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return emu::drain(); }
inline cudaError_t cudaEventCreate(cudaEvent_t *e) {
    *e = new double(0);
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    emu::drain();
    delete e;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
    return emu::submit(
        [=] { *e = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); });
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return emu::drain(); }
inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = (float)((*b - *a) * 1e3);
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return std::exchange(emu::last_error, cudaSuccess); }
inline const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return "invalid argument";
    }
}
template <class F> cudaError_t cudaFuncSetAttribute(F *f, int, int n) {
    if (n > 227 << 10) return emu::fail(cudaErrorInvalidValue);
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
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t) {
    for (auto &f : *x) emu::submit(f);
    return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
#define cudaGraphExecDestroy cudaGraphDestroy

#endif
