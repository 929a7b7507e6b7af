// SPDX-License-Identifier: MIT
/* Matrix fragments of a warp. Element i of lane l is number 32 i + l of the matrix; a card's order is not specified, so code
 * must not know it. */
#ifndef BB_TESTS_CUDA_EMULATION_WMMA_H
#define BB_TESTS_CUDA_EMULATION_WMMA_H

#include "emulation/threads.h"

namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
inline float wide(__nv_bfloat16 b) { return __bfloat162float(b); }
template <class T> constexpr double least_compute = 7.5;
template <> inline constexpr double least_compute<__nv_bfloat16> = 8.0;
inline float wide(__half b) { return __half2float(b); }
inline int wide(int8_t b) { return b; }
template <class U, int M, int N, int K, class T, class L = void> struct fragment {
    static constexpr bool A = std::is_same<U, matrix_a>::value, B = std::is_same<U, matrix_b>::value,
                          RM = std::is_same<L, row_major>::value;
    enum { R = B ? K : M, C = A ? K : N, num_elements = R * C / 32 };
    T x[num_elements];
};
template <class T> void check(const T *p, unsigned ld) {
    if ((uintptr_t)p % 32 || ld * sizeof(T) % 16)
        emu::die("wmma%s: pointer not 32-byte aligned, or ld %ld not of 16 bytes", "", ld);
}
template <class F> size_t at(int i, unsigned ld, layout_t l) {
    int e = i * 32 + emu::lane(), r = e / F::C, c = e % F::C;
    return l == mem_row_major ? (size_t)r * ld + c : (size_t)c * ld + r;
}
template <class F, class T> void fill_fragment(F &f, T v) {
    for (auto &e : f.x) e = v;
}
template <class F, class T>
void load_matrix_sync(F &f, const T *p, unsigned ld, layout_t l = F::RM ? mem_row_major : mem_col_major) {
    check(p, ld);
    for (int i = 0; i < F::num_elements; i++) f.x[i] = p[at<F>(i, ld, l)];
}
template <class F, class T> void store_matrix_sync(T *p, const F &f, unsigned ld, layout_t l) {
    check(p, ld);
    for (int i = 0; i < F::num_elements; i++) p[at<F>(i, ld, l)] = f.x[i];
}
template <int M, int N, int K, class T, class LA, class LB, class X>
void mma_sync(fragment<accumulator, M, N, K, X> &d, const fragment<matrix_a, M, N, K, T, LA> &a,
              const fragment<matrix_b, M, N, K, T, LB> &b, const fragment<accumulator, M, N, K, X> &c) {
    struct Arg {
        decltype(&d) pd;
        decltype(&a) pa;
        decltype(&b) pb;
        decltype(&c) pc;
    } me{&d, &a, &b, &c};
    emu::meet(~0u, "mma_sync", 0, &me, [](void **q, unsigned m) {
        static X A[M * K], B[K * N], C[M * N];
        Arg **p = (Arg **)q;
        if (emu::compute < least_compute<T>) emu::die("bf16 fragments%s, which this card does not have", "");
        if (m != ~0u) emu::die("mma_sync%s by a warp of fewer than 32 lanes", "");
        for (int l = 0; l < 32; l++) {
            for (int i = 0; i < M * K / 32; i++) A[i * 32 + l] = wide(p[l]->pa->x[i]);
            for (int i = 0; i < K * N / 32; i++) B[i * 32 + l] = wide(p[l]->pb->x[i]);
            for (int i = 0; i < M * N / 32; i++) C[i * 32 + l] = p[l]->pc->x[i];
        }
        for (int i = 0; i < M; i++)
            for (int k = 0; k < K; k++)
                for (int j = 0; j < N; j++) C[i * N + j] += A[i * K + k] * B[k * N + j];
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < M * N / 32; i++) p[l]->pd->x[i] = C[i * 32 + l];
    });
}
} // namespace wmma
} // namespace nvcuda

#endif
