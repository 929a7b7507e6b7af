// SPDX-License-Identifier: MIT
/* Stands for libcublasLt under emulation: the functions that src/ops/cuda/cublaslt.cu looks for, as loops on the host. In place of
 * the right products, STAND_IN_CUBLASLT asks for: "forward", "input", "weights" (one element of that product is off by one), "none"
 * (no algorithm for any shape), "fails" (no product is computed). STAND_IN_LOG: a file that gets a line for each product. */
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulation/stream.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
struct layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};
struct description {
    int compute, transposed_a, transposed_b;
};

bool asked(const char *what) {
    const char *text = getenv("STAND_IN_CUBLASLT");
    return text && strcmp(text, what) == 0;
}

float wide(const uint16_t *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
struct half {
    uint16_t bits;
};
float wide(const half *p) {
    int exponent = p->bits >> 10 & 31, fraction = p->bits & 1023;
    float x = exponent == 31 ? (fraction ? NAN : INFINITY)
                             : ldexpf((float)(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
    return p->bits >> 15 ? -x : x;
}
int wide(const int8_t *p) { return *p; }

/* By columns, as the library's matrices are: columns of the result are rows of ours. */
template <class T, class X>
void multiply(X *c, const layout &lc, const T *a, const layout &la, const T *b, const layout &lb, const description &d, X before) {
    uint64_t K = d.transposed_a ? la.rows : la.columns;
    for (uint64_t j = 0; j < lc.columns; j++)
        for (uint64_t i = 0; i < lc.rows; i++) {
            X sum = 0;
            for (uint64_t k = 0; k < K; k++)
                sum += wide(d.transposed_a ? a + i * la.stride + k : a + k * la.stride + i) *
                       wide(d.transposed_b ? b + k * lb.stride + j : b + j * lb.stride + k);
            X *to = c + j * lc.stride + i;
            *to = before != 0 ? *to + sum : sum;
        }
}
} // namespace

EXPORT int cublasLtCreate(void **handle) {
    *handle = handle;
    return 0;
}
EXPORT int cublasLtDestroy(void *) { return 0; }
EXPORT size_t cublasLtGetVersion() { return 990099; }
EXPORT int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    *out = new layout{type, rows, columns, stride};
    return 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(void *l) {
    delete (layout *)l;
    return 0;
}
EXPORT int cublasLtMatmulDescCreate(void **out, int compute, int) {
    *out = new description{compute, 0, 0};
    return 0;
}
EXPORT int cublasLtMatmulDescDestroy(void *d) {
    delete (description *)d;
    return 0;
}
EXPORT int cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *value, size_t size) {
    if (size != sizeof(int) || (attribute != 3 && attribute != 4)) return 7;
    memcpy(attribute == 3 ? &((description *)d)->transposed_a : &((description *)d)->transposed_b, value, size);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(void **out) {
    *out = out;
    return 0;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void *) { return 0; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t) { return 0; }
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int, void *, int *count) {
    *count = asked("none") ? 0 : 1;
    return 0;
}
EXPORT int cublasLtMatmul(void *, void *description_, const void *alpha, const void *a, void *la_, const void *b, void *lb_,
                          const void *beta, const void *c, void *, void *d, void *lc_, const void *, void *, size_t,
                          cudaStream_t stream) {
    const description how = *(description *)description_;
    const layout la = *(layout *)la_, lb = *(layout *)lb_, lc = *(layout *)lc_;
    bool in_int8 = how.compute == 72, in_half = la.type == 2;
    if (c != d || (in_int8 ? *(const int *)alpha != 1 || la.type != 3 || lc.type != 10 || !how.transposed_a
                           : *(const float *)alpha != 1.0f || (la.type != 14 && !in_half) || lc.type != 0 || !how.transposed_b))
        return 7;
    if (asked("fails")) return 13;
    float before = in_int8 ? (float)*(const int *)beta : *(const float *)beta;
    bool more_outputs = lc.rows > la.rows; /* dx of the self-check has more columns than it sums over */
    bool wrong = in_int8 ? asked(more_outputs ? "input" : "forward") : asked("weights");
    auto run = [=] {
        if (in_int8)
            multiply((int *)d, lc, (const int8_t *)a, la, (const int8_t *)b, lb, how, (int)before);
        else if (in_half)
            multiply((float *)d, lc, (const half *)a, la, (const half *)b, lb, how, before);
        else
            multiply((float *)d, lc, (const uint16_t *)a, la, (const uint16_t *)b, lb, how, before);
        uint64_t at = (lc.columns - 1) * lc.stride + lc.rows - 1;
        if (wrong && in_int8) ((int *)d)[at]++;
        if (wrong && !in_int8) ((float *)d)[at]++;
    };
    stream->submit(stream, emu_work{run, nullptr});
    if (const char *path = getenv("STAND_IN_LOG"))
        if (FILE *log = fopen(path, "a")) {
            fprintf(log, "%s %d %d %d\n", in_int8 ? "int8" : in_half ? "fp16" : "bf16", (int)lc.columns, (int)lc.rows,
                    (int)(how.transposed_a ? la.rows : la.columns));
            fclose(log);
        }
    return 0;
}
