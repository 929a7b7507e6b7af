// SPDX-License-Identifier: MIT
/* Peers (ops/optional.h) through NVIDIA's NCCL, which is loaded by name at run time. NCCL only carries messages between cards,
 * so sums have our order, whatever the links between cards. If the compiler finds NCCL's header, it compares the constants and
 * structs declared here with it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

#if defined(__CUDACC__) && defined(__has_include)
#if __has_include(<nccl.h>)
#include <nccl.h>
#define COMPARED
#endif
#endif

enum { SUCCESS = 0, IN_PROGRESS = 7, BYTES = 0 /* NCCL's type int8 */, THREADS = 256 };

typedef struct group_id {
    char bytes[BB_PEERS_ID_BYTES];
} group_id;

#ifdef COMPARED
static_assert((int)SUCCESS == (int)ncclSuccess && (int)IN_PROGRESS == (int)ncclInProgress && (int)BYTES == (int)ncclInt8 &&
                  sizeof(group_id) == sizeof(ncclUniqueId),
              "as in the library's header");
#endif

struct bb_cuda_peers {
    void *library;
    int (*version)(int *);
    int (*make_id)(group_id *);
    int (*join)(void **, int, group_id, int);
    int (*destroy)(void *);
    int (*abort)(void *);
    int (*async_error)(void *, int *);
    int (*begin_group)(void);
    int (*end_group)(void);
    int (*send)(const void *, size_t, int, int, void *, cudaStream_t);
    int (*receive)(void *, size_t, int, int, void *, cudaStream_t);
    const char *(*text)(int);

    void *group; /* NULL: none */
    int size;
    bool refused; /* given up: there will be no group */
    cudaStream_t stream;
    cudaEvent_t before, done; /* recorded on the device's stream, and on `stream` */
};

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static bool find_functions(bb_cuda_peers *p) {
    const struct {
        const char *name;
        void *to;
    } functions[] = {
        {"ncclGetVersion", &p->version},     {"ncclGetUniqueId", &p->make_id}, {"ncclCommInitRank", &p->join},
        {"ncclCommDestroy", &p->destroy},    {"ncclCommAbort", &p->abort},     {"ncclCommGetAsyncError", &p->async_error},
        {"ncclGroupStart", &p->begin_group}, {"ncclGroupEnd", &p->end_group},  {"ncclSend", &p->send},
        {"ncclRecv", &p->receive},           {"ncclGetErrorString", &p->text}};
    for (auto &f : functions) {
        void *function = dlsym(p->library, f.name);
        if (!function) return false;
        memcpy(f.to, &function, sizeof function);
    }
    return true;
}

static void close_peers(bb_cuda_peers *p) {
    if (p->group) (void)p->destroy(p->group);
    if (p->done) (void)cudaEventDestroy(p->done);
    if (p->before) (void)cudaEventDestroy(p->before);
    if (p->stream) (void)cudaStreamDestroy(p->stream);
    if (p->library) (void)dlclose(p->library);
    free(p);
}

void bb_cuda_peers_close(bb_cuda *cuda) {
    if (cuda->peers) close_peers(cuda->peers);
    cuda->peers = NULL;
}

static bb_status open_library(bb_cuda *cuda, bb_error *err) {
    if (cuda->peers && cuda->peers->refused) return bb_fail(err, BB_ERR_UNSUPPORTED, "NCCL was given up");
    if (cuda->peers) return BB_OK;
    const char *asked = getenv("BITBYTE_CUDA_NCCL");
    if (asked && strcmp(asked, "off") == 0) return bb_fail(err, BB_ERR_UNSUPPORTED, "BITBYTE_CUDA_NCCL=off");
    bb_cuda_peers *p = (bb_cuda_peers *)calloc(1, sizeof *p);
    if (!p) return bb_fail(err, BB_ERR_MEMORY, "out of memory for exchanges between cards");
    p->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    bool found = p->library && find_functions(p);
    if (found && cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking) == cudaSuccess &&
        cudaEventCreateWithFlags(&p->before, cudaEventDisableTiming) == cudaSuccess &&
        cudaEventCreateWithFlags(&p->done, cudaEventDisableTiming) == cudaSuccess) {
        cuda->peers = p;
        return BB_OK;
    }
    close_peers(p);
    return bb_fail(err, BB_ERR_UNSUPPORTED, found ? "there is no stream for it" : "libnccl.so.2 is not found");
}

static bb_status make_id(bb_device *dev, unsigned char *id, bb_error *err) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    BB_TRY(open_library(cuda, err));
    group_id made;
    int code = cuda->peers->make_id(&made);
    if (code != SUCCESS) return bb_fail(err, BB_ERR_UNSUPPORTED, "NCCL: %s", cuda->peers->text(code));
    memcpy(id, made.bytes, sizeof made.bytes);
    return BB_OK;
}

static bb_status join(bb_device *dev, const unsigned char *id, int rank, int size, bb_error *err) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    group_id given;
    int version = 0;
    if (size > BB_PEERS_MAX) return bb_fail(err, BB_ERR_UNSUPPORTED, "%d ranks; at most %d", size, (int)BB_PEERS_MAX);
    BB_TRY(open_library(cuda, err));
    bb_cuda_peers *p = cuda->peers;
    memcpy(given.bytes, id, sizeof given.bytes);
    int code = p->join(&p->group, size, given, rank);
    if (code != SUCCESS) {
        p->group = NULL;
        return bb_fail(err, BB_ERR_UNSUPPORTED, "NCCL: %s", p->text(code));
    }
    p->size = size;
    (void)p->version(&version);
    size_t length = strlen(cuda->description);
    snprintf(cuda->description + length, sizeof cuda->description - length, ", NCCL %d", version);
    return BB_OK;
}

static int joined(const bb_device *dev) {
    const bb_cuda *cuda = bb_cuda_of(dev);
    return cuda->peers && cuda->peers->group ? cuda->peers->size : 0;
}

static void leave(bb_device *dev, const char *why) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_peers *p = cuda->peers;
    if (p && p->group) (void)p->abort(p->group);
    if (p) p->group = NULL;
    if (p) p->refused = true;
    char *said = strstr(cuda->description, ", NCCL"), *refused = strstr(cuda->description, "; NCCL");
    if (said) *said = '\0';
    size_t length = strlen(cuda->description);
    if (why && !refused) snprintf(cuda->description + length, sizeof cuda->description - length, "; NCCL is not used: %s", why);
}

/* ---- exchanges ------------------------------------------------------------------------------------------------------------ */

static void check(bb_device *dev, int code, const char *what) {
    bb_cuda *cuda = bb_cuda_of(dev);
    if (code == SUCCESS || code == IN_PROGRESS || cuda->failure.code != BB_OK) return;
    bb_fail(&cuda->failure, BB_ERR_INTERNAL, "NCCL: %s: %s", what, cuda->peers->text(code));
}

static void exchange(bb_device *dev, const bb_peer_message *messages, int count) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_peers *p = cuda->peers;
    bb_cuda_check(dev, cudaEventRecord(p->before, cuda->stream), "cudaEventRecord");
    bb_cuda_check(dev, cudaStreamWaitEvent(p->stream, p->before, 0), "cudaStreamWaitEvent");
    check(dev, p->begin_group(), "beginning an exchange");
    for (int i = 0; i < count; i++) {
        const bb_peer_message *m = &messages[i];
        if (m->receive)
            check(dev, p->receive(m->data, m->bytes, BYTES, m->rank, p->group, p->stream), "receiving");
        else
            check(dev, p->send(m->data, m->bytes, BYTES, m->rank, p->group, p->stream), "sending");
    }
    check(dev, p->end_group(), "an exchange");
    bb_cuda_check(dev, cudaEventRecord(p->done, p->stream), "cudaEventRecord");
}

typedef struct parts {
    float *of[BB_PEERS_MAX];
} parts;

enum { MAX_LEVELS = 8 };
static_assert(1 << MAX_LEVELS == BB_PEERS_MAX, "levels of a tree of so many ranks");

/* A leaf is the sum of `leaf` parts, in order. partial[level] holds a sum until its right sibling is ready, like a bit of a
 * binary counter. */
static __global__ void __launch_bounds__(THREADS) tree_sum(float *out, parts in, int leaves, int leaf, int64_t n) {
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        float partial[MAX_LEVELS] = {}, sum = 0;
        for (int l = 0; l < leaves; l++) {
            sum = in.of[l * leaf][i];
            for (int j = 1; j < leaf; j++) sum += in.of[l * leaf + j][i];
            bool carry = true;
            BB_CUDA_UNROLL
            for (int level = 0; level < MAX_LEVELS; level++) {
                if (!carry) continue;
                carry = l >> level & 1;
                if (carry)
                    sum = partial[level] + sum;
                else
                    partial[level] = sum;
            }
        }
        out[i] = sum;
    }
}

static void sum_parts(bb_device *dev, float *out, float *const *from, int count, int64_t n) {
    bb_cuda_peers *p = bb_cuda_enter(dev)->peers;
    parts in = {};
    int leaf = count, leaves = 1;
    if (n == 0) return;
    for (int i = 0; i < count; i++) in.of[i] = from[i];
    for (; leaf % 2 == 0; leaf /= 2) leaves *= 2;
    LAUNCH(tree_sum, bb_cuda_blocks(dev, n, THREADS), THREADS, 0, p->stream, out, in, leaves, leaf, n);
    bb_cuda_check(dev, cudaGetLastError(), "tree_sum");
    bb_cuda_check(dev, cudaEventRecord(p->done, p->stream), "cudaEventRecord");
}

static bb_status poll(bb_device *dev, bool *done, bb_error *err) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_peers *p = cuda->peers;
    int code = SUCCESS;
    cudaError_t state = cudaEventQuery(p->done);
    *done = state == cudaSuccess;
    if (state == cudaErrorNotReady) {
        (void)cudaGetLastError();
        if (p->async_error(p->group, &code) == SUCCESS) check(dev, code, "an exchange");
    } else {
        bb_cuda_check(dev, state, "an exchange between cards");
    }
    bb_error failure = cuda->failure;
    cuda->failure.code = BB_OK;
    return failure.code == BB_OK ? BB_OK : bb_fail(err, failure.code, "%s", failure.message);
}

void bb_cuda_peers_entries(bb_optional_ops *o) {
    o->peers_joined = joined;
    o->peers_id = make_id;
    o->peers_join = join;
    o->peers_leave = leave;
    o->peers_exchange = exchange;
    o->peers_sum = sum_parts;
    o->peers_poll = poll;
}
