// SPDX-License-Identifier: MIT
/* The few functions of cuBLASLt that are needed, declared as in its public header and loaded by name at run time. If the
 * compiler finds that header, it compares the constants and structs below with it. */
#include "ops/cuda/cublaslt.h"

#include <dlfcn.h>
#include <stdlib.h>

#if defined(__CUDACC__) && defined(__has_include)
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define COMPARED
#endif
#endif

/* Constants from the library's enumerations. */
enum {
    SUCCESS = 0,
    TRANSPOSED = 1,
    SUMS_F32 = 68,
    SUMS_INT32 = 72,
    TYPE_F32 = 0,
    TYPE_F16 = 2,
    TYPE_INT8 = 3,
    TYPE_INT32 = 10,
    TYPE_BF16 = 14,
    DESCRIPTION_TRANSPOSE_A = 3,
    DESCRIPTION_TRANSPOSE_B = 4,
    PREFERENCE_WORKSPACE = 1,
    PREFERENCE_REDUCTIONS = 3,
    NO_REDUCTION = 0
};

typedef struct algorithm {
    uint64_t data[8];
} algorithm;

typedef struct heuristic {
    algorithm algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} heuristic;

#ifdef COMPARED
#define SAME(mine, theirs) static_assert((int)mine == (int)theirs, "as in the library's header")
SAME(SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME(TRANSPOSED, CUBLAS_OP_T);
SAME(SUMS_F32, CUBLAS_COMPUTE_32F);
SAME(SUMS_INT32, CUBLAS_COMPUTE_32I);
SAME(TYPE_F32, CUDA_R_32F);
SAME(TYPE_F16, CUDA_R_16F);
SAME(TYPE_INT8, CUDA_R_8I);
SAME(TYPE_INT32, CUDA_R_32I);
SAME(TYPE_BF16, CUDA_R_16BF);
SAME(DESCRIPTION_TRANSPOSE_A, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(DESCRIPTION_TRANSPOSE_B, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(PREFERENCE_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(PREFERENCE_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(NO_REDUCTION, CUBLASLT_REDUCTION_SCHEME_NONE);
static_assert(sizeof(algorithm) == sizeof(cublasLtMatmulAlgo_t) &&
                  sizeof(heuristic) == sizeof(cublasLtMatmulHeuristicResult_t) &&
                  offsetof(heuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state),
              "as in the library's header");
#endif

/* Descriptors and algorithm for products of one shape. */
typedef struct plan {
    bool in_int8;
    bb_dtype act; /* if not in_int8 */
    bb_cuda_product_shape shape;
    void *description, *a, *b, *c;
    algorithm algo;
    bool found;
} plan;

enum { MAX_PLANS = 64 };

struct bb_cuda_blas {
    void *library, *handle;
    int (*create)(void **);
    int (*destroy)(void *);
    size_t (*version)(void);
    int (*multiply)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *,
                    void *, void *, void *, const algorithm *, void *, size_t, cudaStream_t);
    int (*create_layout)(void **, int, uint64_t, uint64_t, int64_t);
    int (*destroy_layout)(void *);
    int (*create_description)(void **, int, int);
    int (*destroy_description)(void *);
    int (*set_description)(void *, int, const void *, size_t);
    int (*create_preference)(void **);
    int (*destroy_preference)(void *);
    int (*set_preference)(void *, int, const void *, size_t);
    int (*choose)(void *, void *, void *, void *, void *, void *, void *, int, heuristic *, int *);
    plan plans[MAX_PLANS];
    int count;
};

static bool find_functions(bb_cuda_blas *blas) {
    const struct {
        const char *name;
        void *to;
    } functions[] = {{"cublasLtCreate", &blas->create},
                     {"cublasLtDestroy", &blas->destroy},
                     {"cublasLtGetVersion", &blas->version},
                     {"cublasLtMatmul", &blas->multiply},
                     {"cublasLtMatrixLayoutCreate", &blas->create_layout},
                     {"cublasLtMatrixLayoutDestroy", &blas->destroy_layout},
                     {"cublasLtMatmulDescCreate", &blas->create_description},
                     {"cublasLtMatmulDescDestroy", &blas->destroy_description},
                     {"cublasLtMatmulDescSetAttribute", &blas->set_description},
                     {"cublasLtMatmulPreferenceCreate", &blas->create_preference},
                     {"cublasLtMatmulPreferenceDestroy", &blas->destroy_preference},
                     {"cublasLtMatmulPreferenceSetAttribute", &blas->set_preference},
                     {"cublasLtMatmulAlgoGetHeuristic", &blas->choose}};
    for (auto &f : functions) {
        void *function = dlsym(blas->library, f.name);
        if (!function) return false;
        memcpy(f.to, &function, sizeof function);
    }
    return true;
}

bb_cuda_blas *bb_cuda_blas_open(void) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    bb_cuda_blas *blas = (bb_cuda_blas *)calloc(1, sizeof *blas);
    if (!blas) return NULL;
    for (const char *name : names)
        if (!blas->library) blas->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (blas->library && find_functions(blas) && blas->create(&blas->handle) == SUCCESS) return blas;
    blas->handle = NULL;
    bb_cuda_blas_close(blas);
    return NULL;
}

void bb_cuda_blas_close(bb_cuda_blas *blas) {
    if (!blas) return;
    for (int i = 0; i < blas->count; i++) {
        plan *p = &blas->plans[i];
        if (p->description) (void)blas->destroy_description(p->description);
        for (void *layout : {p->a, p->b, p->c})
            if (layout) (void)blas->destroy_layout(layout);
    }
    if (blas->handle) (void)blas->destroy(blas->handle);
    if (blas->library) (void)dlclose(blas->library);
    free(blas);
}

size_t bb_cuda_blas_version(const bb_cuda_blas *blas) { return blas->version(); }

/* The library's matrices are column-major: its C (N,M) is our c (M,N), and its A is our b. Sums are not split among blocks (no
 * reduction), so their order is fixed. */
static bool make_plan(bb_cuda_blas *blas, plan *p) {
    const bb_cuda_product_shape &s = p->shape;
    uint64_t N = (uint64_t)s.N, M = (uint64_t)s.M, K = (uint64_t)s.K;
    int type = p->in_int8 ? TYPE_INT8 : p->act == BB_F16 ? TYPE_F16 : TYPE_BF16, transposed = TRANSPOSED, count = 0;
    bool good = blas->create_description(&p->description, p->in_int8 ? SUMS_INT32 : SUMS_F32,
                                         p->in_int8 ? TYPE_INT32 : TYPE_F32) == SUCCESS &&
                blas->set_description(p->description, p->in_int8 ? DESCRIPTION_TRANSPOSE_A : DESCRIPTION_TRANSPOSE_B,
                                      &transposed, sizeof transposed) == SUCCESS;
    if (good && p->in_int8) /* b is (N,K) and a is (M,K), in rows of K elements */
        good = blas->create_layout(&p->a, type, K, N, s.K) == SUCCESS && blas->create_layout(&p->b, type, K, M, s.K) == SUCCESS;
    else if (good) /* b is (K,N) and a is (K,M) */
        good = blas->create_layout(&p->a, type, N, K, s.N) == SUCCESS && blas->create_layout(&p->b, type, M, K, s.M) == SUCCESS;
    good = good && blas->create_layout(&p->c, p->in_int8 ? TYPE_INT32 : TYPE_F32, N, M, s.N) == SUCCESS;
    void *preference = NULL;
    if (!good || blas->create_preference(&preference) != SUCCESS) return false;
    size_t workspace = BB_CUDA_BLAS_WORKSPACE;
    uint32_t reductions = NO_REDUCTION;
    heuristic best = {};
    good = blas->set_preference(preference, PREFERENCE_WORKSPACE, &workspace, sizeof workspace) == SUCCESS &&
           blas->set_preference(preference, PREFERENCE_REDUCTIONS, &reductions, sizeof reductions) == SUCCESS &&
           blas->choose(blas->handle, p->description, p->a, p->b, p->c, p->c, preference, 1, &best, &count) == SUCCESS &&
           count == 1 && best.state == SUCCESS;
    (void)blas->destroy_preference(preference);
    p->algo = best.algo;
    return good;
}

/* Finds or makes the plan for a shape. NULL: the library has none, or MAX_PLANS are in use. */
static const plan *plan_of(const bb_device *dev, bool in_int8, bb_cuda_product_shape shape) {
    bb_cuda_blas *blas = bb_cuda_of(dev)->blas;
    bb_dtype act = dev->ops->act_dtype;
    if (shape.N % BB_CUDA_BLAS_ALIGNMENT || shape.K % BB_CUDA_BLAS_ALIGNMENT || shape.M % BB_CUDA_BLAS_ALIGNMENT) return NULL;
    for (int i = 0; i < blas->count; i++) {
        plan *p = &blas->plans[i];
        if (p->in_int8 == in_int8 && p->act == act && p->shape.M == shape.M && p->shape.N == shape.N && p->shape.K == shape.K)
            return p->found ? p : NULL;
    }
    if (blas->count == MAX_PLANS) return NULL;
    plan *p = &blas->plans[blas->count++];
    *p = {};
    p->in_int8 = in_int8;
    p->act = act;
    p->shape = shape;
    p->found = make_plan(blas, p);
    return p->found ? p : NULL;
}

bool bb_cuda_blas_has(bb_device *dev, bool in_int8, bb_cuda_product_shape shape) {
    return plan_of(dev, in_int8, shape) != NULL;
}

bool bb_cuda_blas_int8(bb_device *dev, int32_t *c, const int8_t *a, const int8_t *b, bb_cuda_product_shape shape,
                       void *workspace) {
    bb_cuda *cuda = bb_cuda_of(dev);
    const plan *p = plan_of(dev, true, shape);
    int32_t one = 1, zero = 0;
    return p && cuda->blas->multiply(cuda->blas->handle, p->description, &one, b, p->a, a, p->b, &zero, c, p->c, c, p->c,
                                     &p->algo, workspace, BB_CUDA_BLAS_WORKSPACE, cuda->stream) == SUCCESS;
}

bool bb_cuda_blas_act(bb_device *dev, float *c, bool add, const void *a, const void *b, bb_cuda_product_shape shape,
                      void *workspace) {
    bb_cuda *cuda = bb_cuda_of(dev);
    const plan *p = plan_of(dev, false, shape);
    float one = 1, before = add ? 1.0f : 0.0f;
    return p && cuda->blas->multiply(cuda->blas->handle, p->description, &one, b, p->a, a, p->b, &before, c, p->c, c, p->c,
                                     &p->algo, workspace, BB_CUDA_BLAS_WORKSPACE, cuda->stream) == SUCCESS;
}
