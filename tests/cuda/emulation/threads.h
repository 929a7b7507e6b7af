// SPDX-License-Identifier: MIT
/* Threads of a CUDA kernel on the CPU: one fiber a thread, blocks one after the other, barriers, warp operations, shared
 * memory.
 *
 * Threads run in an order that EMULATION_SEED gives: 0 as numbered, 1 reversed, others random, where some warps run far
 * ahead and some stay behind. Shared memory is full of 0xff (NaN) when a block begins, and each array has a red zone behind
 * it. cp.async copies when it is waited for, and not before. What no card can go on from ends the process with status 99 and
 * a message: a barrier that some threads miss, lanes in different warp operations, a deadlock, an array of shared memory
 * overrun. AddressSanitizer and ThreadSanitizer know the fibers. */
#ifndef BB_TESTS_CUDA_EMULATION_THREADS_H
#define BB_TESTS_CUDA_EMULATION_THREADS_H

#if !defined(__x86_64__)
#error "fibers are switched by code for x86-64"
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATE_ASAN(...) __VA_ARGS__
#else
#define EMULATE_ASAN(...)
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char *, int);
void AnnotateIgnoreReadsEnd(const char *, int);
void AnnotateIgnoreWritesBegin(const char *, int);
void AnnotateIgnoreWritesEnd(const char *, int);
}
#define EMULATE_TSAN(...) __VA_ARGS__
#else
#define EMULATE_TSAN(...)
#endif
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct __nv_bfloat16 {
    uint16_t v;
};
inline float __bfloat162float(__nv_bfloat16 b) {
    uint32_t u = (uint32_t)b.v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline __nv_bfloat16 __float2bfloat16(float f) { // to nearest even; NaN becomes 0x7fff, as on the card
    uint32_t u;
    memcpy(&u, &f, 4);
    return {(uint16_t)((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

struct __half {
    uint16_t v;
};
// The instructions by gcc's names: the header with the usual ones is half of all that is parsed here, for each file of kernels anew.
typedef float emu_floats __attribute__((vector_size(16)));
typedef short emu_halves __attribute__((vector_size(16)));
inline float __half2float(__half h) { return __builtin_ia32_vcvtph2ps(emu_halves{(short)h.v})[0]; }
inline __half __float2half(float f) { return {(uint16_t)__builtin_ia32_vcvtps2ph(emu_floats{f}, 0)[0]}; } // to nearest even

namespace emu {
inline double compute = getenv("EMULATION_COMPUTE") ? atof(getenv("EMULATION_COMPUTE")) : 9.0; // capability
enum { STACK = 128 << 10, ARENA = 256 << 10, MAXT = 1024 };
struct Quiet {
    Quiet() { EMULATE_TSAN(AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0);) } // TSan: do not look at
    ~Quiet() { EMULATE_TSAN(AnnotateIgnoreWritesEnd("", 0); AnnotateIgnoreReadsEnd("", 0);) }
}; // the emulator's own data
struct Copy {
    int group;
    void *dst;
    const void *src;
    size_t n;
};
struct Ctx {
    void *sp;
    char *stk;
    void *tsan, *fake;
}; // a stack; thread i of block b uses number (i + b) % n
struct Fiber {
    Ctx *c;
    unsigned lin;
    uint3 tid;
    const char *what;
    int line, cpgroup;
    std::vector<Copy> cp;
};
struct Pend {
    unsigned mask, arrived, gen;
    int line;
    void (*fn)(void **, unsigned);
    char hb[2];
};
struct State {
    dim3 grid, block;
    uint3 bid;
    unsigned threads, alive, arrived, gen, blocks;
    int barline;
    char hb[2], kstart, kend;
    const char *kernel;
    Fiber f[MAXT];
    Ctx ctx[MAXT];
    // of each warp, a bit a lane: may run; has not ended; waits in __syncthreads. And a bit for each of pend where some wait.
    unsigned ready[32], live[32], bar[32], waited[32];
    Pend pend[32][32];
    void *slot[32][32], (*fn)(void *), *arg;
    void *sp, *tsan, *fake;
    const void *bot;
    size_t len; // the scheduler's own stack
    char *smem;
    size_t used, dyn;
    std::map<const void *, size_t> sh;
    std::vector<std::pair<size_t, size_t>> red;
    uint64_t seed = getenv("EMULATION_SEED") ? strtoull(getenv("EMULATION_SEED"), 0, 10) : 0,
             rng = seed * 0x9e3779b97f4a7c15u + 1, switches;
    unsigned rnd(unsigned n) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return (rng >> 32) % n;
    }
    template <class T> void mix(T *a, int n) {
        for (int i = n; i-- > 1;) std::swap(a[i], a[rnd(i + 1)]);
    }
};
inline State S;
inline Fiber *cur;
[[noreturn]] inline void die(const char *fmt, const char *a, long b = 0, long c = 0) {
    fprintf(stderr, "CUDA emulation: %s block(%u,%u,%u) thread %d: ", S.kernel, S.bid.x, S.bid.y, S.bid.z,
            cur ? (int)cur->lin : -1);
    fprintf(stderr, fmt, a, b, c);
    fputc('\n', stderr);
    _Exit(99);
}
__attribute__((naked, noinline)) inline void swap(void **, void *) {
    asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15; mov %rsp,(%rdi); mov %rsi,%rsp;"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp;"
        "pop %rcx; jmp *%rcx"); // a processor foretells where ret goes, and would be wrong each time
}
inline void jump(void **from, void *to) {
    swap(from, to);
    asm volatile("" ::: "memory");
}
inline void yield() { // to the scheduler
    Ctx *c = cur->c;
    EMULATE_TSAN(__tsan_switch_to_fiber(S.tsan, 1);)
    EMULATE_ASAN(__sanitizer_start_switch_fiber(&c->fake, S.bot, S.len);)
    jump(&c->sp, S.sp);
    EMULATE_ASAN(__sanitizer_finish_switch_fiber(c->fake, &S.bot, &S.len);)
}
inline void resume(Fiber &f) { // from the scheduler
    cur = &f;
    S.switches++;
    EMULATE_TSAN(__tsan_switch_to_fiber(f.c->tsan, 1);)
    EMULATE_ASAN(__sanitizer_start_switch_fiber(&S.fake, f.c->stk, STACK);)
    jump(&S.sp, f.c->sp);
    EMULATE_ASAN(__sanitizer_finish_switch_fiber(S.fake, nullptr, nullptr);)
    cur = nullptr;
}
inline void wait(const char *what, int line) {
    Fiber *f = cur;
    S.ready[f->lin / 32] &= ~(1u << f->lin % 32);
    f->what = what;
    f->line = line;
    yield();
}
inline void release_block() {
    S.arrived = 0;
    S.gen++;
    for (unsigned w = 0; w * 32 < S.threads; w++) S.ready[w] |= std::exchange(S.bar[w], 0);
}
inline void complete(unsigned w, Pend &p) { // all live lanes of the mask are here
    if (p.fn) p.fn(S.slot[w], p.arrived);
    S.ready[w] |= p.arrived;
    S.waited[w] &= ~(1u << (&p - S.pend[w]));
    p.arrived = 0;
    p.gen++;
}
inline void fiber_main() {
    EMULATE_ASAN(__sanitizer_finish_switch_fiber(nullptr, &S.bot, &S.len);)
    for (;;) {
        EMULATE_TSAN(__tsan_acquire(&S.kstart);) S.fn(S.arg);
        EMULATE_TSAN(__tsan_release(&S.kend);)
        Quiet q;
        Fiber *f = cur;
        if (f->cp.size()) die("ends with cp.async copies that nobody waited for%s", "");
        unsigned w = f->lin / 32, lane = 1u << f->lin % 32;
        S.live[w] &= ~lane;
        S.ready[w] &= ~lane;
        S.alive--;
        for (unsigned waited = S.waited[w]; waited; waited &= waited - 1)
            if (Pend &p = S.pend[w][__builtin_ctz(waited)]; p.arrived == (p.mask & S.live[w])) complete(w, p);
        if (S.arrived && S.arrived == S.alive) release_block();
        yield();
    }
}
inline char *carve(size_t size) { // shared memory, with a red zone after it
    size_t at = S.used, end = at + size;
    S.used = (end + 64 + 127) & ~(size_t)127;
    if (S.used > ARENA) die("too much shared memory%s", "");
    EMULATE_ASAN(__asan_unpoison_memory_region(S.smem + at, size);)
    S.red.push_back({end, S.used});
    return S.smem + at;
}
inline void *shared(const void *key, size_t size) {
    Quiet q;
    auto it = S.sh.find(key);
    if (it == S.sh.end()) it = S.sh.emplace(key, carve(size) - S.smem).first;
    return S.smem + it->second;
}
inline void run_block() {
    EMULATE_TSAN(if (S.smem) munmap(S.smem, ARENA); S.smem = nullptr;) // a fresh mapping clears TSan's shadow
    if (!S.smem) S.smem = (char *)mmap(0, S.used = ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EMULATE_ASAN(__asan_unpoison_memory_region(S.smem, ARENA);)
    memset(S.smem, 0xff, S.used);
    EMULATE_ASAN(__asan_poison_memory_region(S.smem, ARENA);)
    S.sh.clear();
    S.red.clear();
    S.used = S.arrived = 0;
    S.alive = S.threads;
    memset(S.pend, 0, (S.threads + 31) / 32 * sizeof S.pend[0]);
    carve(S.dyn);
    for (unsigned i = 0; i < S.threads; i++) {
        Fiber &f = S.f[i];
        Ctx &c = *(f.c = &S.ctx[(i + S.blocks) % S.threads]);
        f.lin = i;
        f.cpgroup = 0;
        f.tid = {i % S.block.x, i / S.block.x % S.block.y, i / S.block.x / S.block.y};
        if (c.stk) continue;
        c.stk = (char *)mmap(0, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 4096;
        mprotect(c.stk - 4096, 4096, PROT_NONE);
        void **sp = (void **)(c.stk + STACK);
        sp[-2] = (void *)fiber_main;
        c.sp = sp - 8; // swap pops six registers and returns
        EMULATE_TSAN(c.tsan = __tsan_create_fiber(0);)
    }
    for (unsigned w = 0; w * 32 < S.threads; w++) {
        S.live[w] = S.ready[w] = S.threads - w * 32 < 32 ? (1u << S.threads % 32) - 1 : ~0u;
        S.bar[w] = S.waited[w] = 0;
    }
    int nw = (S.threads + 31) / 32, warps[32], lanes[32], idle = 0;
    S.blocks++;
    for (int i = 0; i < 32; i++) lanes[i] = S.seed == 1 ? 31 - i : i, warps[i] = S.seed == 1 ? nw - 1 - i : i;
    while (S.alive) {
        bool ran = false;
        if (S.seed > 1) S.mix(warps, nw);
        for (int j = 0; j < nw; j++) {
            unsigned steps = S.seed < 2 || S.rnd(3) == 0 ? ~0u : S.rnd(3); // some warps run far ahead, some stay behind
            if (S.seed > 1) S.mix(lanes, 32);
            for (int w = warps[j]; S.ready[w] && steps--; ran = true)
                for (int l : lanes)
                    if (S.ready[w] >> l & 1) resume(S.f[w * 32 + l]);
        }
        idle = ran ? 0 : idle + 1;
        if (idle > 64)
            for (unsigned i = 0; i < S.threads; i++)
                if (Fiber &f = S.f[i]; S.live[i / 32] >> i % 32 & 1) {
                    cur = &f;
                    die("deadlock: waits for ever in %s, line %ld", f.what, f.line / 64);
                }
    }
    EMULATE_ASAN(__asan_unpoison_memory_region(S.smem, ARENA);)
    for (auto &r : S.red)
        for (size_t i = r.first; i < r.second; i++)
            if (S.smem[i] != (char)0xff) die("shared memory overrun%s: offset %ld, its array ends at %ld", "", i, r.first);
}
inline std::recursive_mutex one_at_a_time; // kernels of other devices, on other threads
inline void run_grid(const char *name, dim3 g, dim3 b, size_t dyn, void (*fn)(void *), void *arg) {
    std::lock_guard<std::recursive_mutex> lock(one_at_a_time);
    Quiet q;
    S.kernel = name;
    S.grid = g;
    S.block = b;
    S.threads = b.x * b.y * b.z;
    S.dyn = dyn;
    S.fn = fn;
    S.arg = arg;
    if (S.threads > MAXT) die("%s%ld threads in a block", "", S.threads);
    EMULATE_TSAN(S.tsan = __tsan_get_current_fiber(); __tsan_release(&S.kstart);)
    std::vector<unsigned> order(g.x * g.y * g.z);
    for (size_t i = 0; i < order.size(); i++) order[i] = S.seed == 1 ? order.size() - 1 - i : i;
    if (S.seed > 1) S.mix(order.data(), order.size());
    for (unsigned i : order) {
        S.bid = {i % g.x, i / g.x % g.y, i / g.x / g.y};
        run_block();
    }
    EMULATE_TSAN(__tsan_acquire(&S.kend);)
}
// ---- barriers and warp operations
inline void syncthreads(int line) {
    Quiet q;
    Fiber *f = cur;
    char *hb = &S.hb[S.gen & 1];
    (void)hb;
    if (S.arrived && S.barline != line)
        die("__syncthreads in line %s%ld while others wait in line %ld", "", line / 64, S.barline / 64);
    S.barline = line;
    S.bar[f->lin / 32] |= 1u << f->lin % 32;
    EMULATE_TSAN(__tsan_release(hb);)
    if (++S.arrived < S.alive)
        wait("__syncthreads", line);
    else {
        release_block();
        if (S.seed > 1) yield();
    }
    EMULATE_TSAN(__tsan_acquire(hb);)
}
inline void meet(unsigned mask, const char *op, int line, void *mine, void (*fn)(void **, unsigned), bool fence = false) {
    Quiet q;
    unsigned w = cur->lin / 32, l = cur->lin % 32;
    Pend &p = S.pend[w][__builtin_ctz(mask)];
    char *hb = &p.hb[p.gen & 1];
    if (!(mask >> l & 1)) die("%s, line %ld: caller not in its mask %lx", op, line / 64, mask);
    if (p.arrived && (p.mask != mask || p.line != line))
        die("%s, line %ld: other lanes are in another one, line %ld", op, line / 64, p.line / 64);
    p.mask = mask;
    p.line = line;
    p.fn = fn;
    S.slot[w][l] = mine;
    p.arrived |= 1u << l;
    S.waited[w] |= 1u << (&p - S.pend[w]);
    EMULATE_TSAN(if (fence) __tsan_release(hb);)
    if (p.arrived == (mask & S.live[w]))
        complete(w, p);
    else
        wait(op, line);
    EMULATE_TSAN(if (fence) __tsan_acquire(hb);)
    (void)hb;
    (void)fence;
}
template <class T> struct Shfl {
    T in, out;
    int src;
};
template <class T> T shfl(int line, unsigned mask, T v, int src) {
    Shfl<T> s{v, v, src};
    meet(mask, "shuffle", line, &s, [](void **p, unsigned lanes) {
        for (int l = 0; l < 32; l++)
            if (auto *q = (Shfl<T> *)p[l]; lanes >> l & 1) {
                if (!(lanes >> q->src & 1)) die("shuffle%s reads lane %ld, which takes no part", "", q->src);
                q->out = ((Shfl<T> *)p[q->src])->in;
            }
    });
    return s.out;
}
inline int lane() { return cur->lin % 32; }
template <class T> struct Red {
    T v;
    T (*f)(T, T);
};
template <class T> T reduce(int line, unsigned m, T v, T (*f)(T, T)) {
    Red<T> s{v, f};
    meet(m, "warp reduction", line, &s, [](void **p, unsigned lanes) {
        auto **q = (Red<T> **)p;
        int k = __builtin_ctz(lanes);
        T r = q[k]->v;
        for (int l = k + 1; l < 32; l++)
            if (lanes >> l & 1) r = q[l]->f(r, q[l]->v);
        for (int l = k; l < 32; l++)
            if (lanes >> l & 1) q[l]->v = r;
    });
    return s.v;
}
} // namespace emu
#define EMULATE_SITE (__LINE__ * 64 + __COUNTER__ % 64) // two operations in one line are two sites
#define threadIdx (emu::cur->tid)
#define blockIdx (emu::S.bid)
#define blockDim (emu::S.block)
#define gridDim (emu::S.grid)
#define __syncthreads() emu::syncthreads(EMULATE_SITE)
#define __syncwarp() emu::meet(~0u, "__syncwarp", EMULATE_SITE, nullptr, nullptr, true)
#define __shfl_xor_sync(m, v, x) emu::shfl(EMULATE_SITE, m, v, emu::lane() ^ (x))
#define __shfl_sync(m, v, s) emu::shfl(EMULATE_SITE, m, v, (s)&31)
#define __shfl_down_sync(m, v, d)                                                                                              \
    emu::shfl(EMULATE_SITE, m, v, emu::lane() + (int)(d) < 32 ? emu::lane() + (int)(d) : emu::lane())
#define __ballot_sync(m, p)                                                                                                    \
    emu::reduce<unsigned>(EMULATE_SITE, m, (p) ? 1u << emu::lane() : 0u, [](unsigned a, unsigned b) { return a | b; })
#define __reduce_add_sync(m, v) emu::reduce<std::decay_t<decltype(v)>>(EMULATE_SITE, m, v, [](auto a, auto b) { return a + b; })
#define __reduce_max_sync(m, v)                                                                                                \
    emu::reduce<std::decay_t<decltype(v)>>(EMULATE_SITE, m, v, [](auto a, auto b) { return a > b ? a : b; })
#define SHARED(T, name, dims)                                                                                                  \
    static char name##_key;                                                                                                    \
    typedef T name##_t dims;                                                                                                   \
    name##_t &name = *(name##_t *)emu::shared(&name##_key, sizeof(name##_t))
#define DYN_SHARED(T, name) T *name = (T *)emu::S.smem
#define LAUNCH(k, g, b, smem, st, ...) emu::launch(#k, k, g, b, smem, st, __VA_ARGS__)
template <class T, class F> T emu_rmw(T *p, F f) {
    T o, n;
    __atomic_load(p, &o, __ATOMIC_RELAXED);
    do n = f(o);
    while (!__atomic_compare_exchange(p, &o, &n, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return o;
}
template <class T> T atomicAdd(T *p, T v) {
    return emu_rmw(p, [v](T o) { return o + v; });
}
template <class T> T atomicMax(T *p, T v) {
    return emu_rmw(p, [v](T o) { return std::max(o, v); });
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline unsigned __float_as_uint(float x) {
    unsigned i;
    memcpy(&i, &x, 4);
    return i;
}
inline float __uint_as_float(unsigned i) {
    float x;
    memcpy(&x, &i, 4);
    return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __expf(float x) { return expf(x); }
inline int __float2int_rn(float x) { return (int)lrintf(x); }
inline void __threadfence() {}
using std::max;
using std::min;
// cp.async (the calls of cuda_pipeline.h): copied when waited for, as late as the card may do it
inline void __pipeline_memcpy_async(void *d, const void *s, size_t n) {
    if (((uintptr_t)d | (uintptr_t)s) & (n - 1)) emu::die("cp.async%s not aligned to %ld bytes", "", n);
    emu::Quiet q;
    emu::cur->cp.push_back({emu::cur->cpgroup, d, s, n});
}
inline void __pipeline_commit() {
    emu::Quiet q;
    emu::cur->cpgroup++;
}
inline void __pipeline_wait_prior(int k) {
    std::vector<emu::Copy> now;
    {
        emu::Quiet q;
        auto &v = emu::cur->cp;
        size_t i = 0;
        while (i < v.size() && v[i].group < emu::cur->cpgroup - k) i++;
        now.assign(v.begin(), v.begin() + i);
        v.erase(v.begin(), v.begin() + i);
    }
    for (auto &c : now) memcpy(c.dst, c.src, c.n);
}

#endif
