// SPDX-License-Identifier: MIT
/* Copies to the card that do not wait for its computation. A separate stream copies through pinned memory to buffers on the
 * card. The device's stream copies from these buffers when it reaches the copy. So the next micro-batches arrive while one is
 * computed. */
#include <stdlib.h>

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

/* Maximum number of copies in flight. A batch needs two (its bytes, and the bytes that follow them), or three with n-grams. */
enum { PLACES = 6 };

typedef struct place {
    size_t bytes;
    void *pinned, *on_card;
    cudaEvent_t arrived; /* recorded on the copy stream */
    cudaEvent_t taken;   /* recorded on the device's stream */
} place;

struct bb_cuda_ahead {
    cudaStream_t stream;
    place places[PLACES];
    int next;
};

size_t bb_cuda_ahead_bytes(size_t bytes) { return PLACES * ((bytes + 255) & ~(size_t)255); }

static bool open_ahead(bb_device *dev) {
    bb_cuda *cuda = bb_cuda_of(dev);
    if (cuda->ahead) return true;
    cuda->ahead = (bb_cuda_ahead *)calloc(1, sizeof *cuda->ahead);
    if (!cuda->ahead) return false;
    if (!bb_cuda_check(dev, cudaStreamCreateWithFlags(&cuda->ahead->stream, cudaStreamNonBlocking), "a stream for copies"))
        return false;
    for (place &p : cuda->ahead->places)
        if (!bb_cuda_check(dev, cudaEventCreateWithFlags(&p.arrived, cudaEventDisableTiming), "an event for copies") ||
            !bb_cuda_check(dev, cudaEventCreateWithFlags(&p.taken, cudaEventDisableTiming), "an event for copies"))
            return false;
    return true;
}

void bb_cuda_ahead_close(bb_cuda *cuda) {
    bb_cuda_ahead *ahead = cuda->ahead;
    if (!ahead) return;
    if (ahead->stream) (void)cudaStreamSynchronize(ahead->stream);
    for (place &p : ahead->places) {
        if (p.pinned) (void)cudaFreeHost(p.pinned);
        if (p.on_card) (void)cudaFree(p.on_card);
        if (p.arrived) (void)cudaEventDestroy(p.arrived);
        if (p.taken) (void)cudaEventDestroy(p.taken);
    }
    if (ahead->stream) (void)cudaStreamDestroy(ahead->stream);
    free(ahead);
    cuda->ahead = NULL;
}

/* Replaces the buffers by larger ones, once both streams are done with their contents. Returns false if there is no memory. */
static bool grow(bb_device *dev, place *p, size_t bytes) {
    bb_cuda_check(dev, cudaEventSynchronize(p->taken), "a copy to the card");
    if (p->pinned) (void)cudaFreeHost(p->pinned);
    if (p->on_card) (void)cudaFree(p->on_card);
    p->pinned = p->on_card = NULL;
    p->bytes = 0;
    if (cudaHostAlloc(&p->pinned, bytes, cudaHostAllocDefault) != cudaSuccess ||
        cudaMalloc(&p->on_card, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    p->bytes = bytes;
    return true;
}

void bb_cuda_copy_ahead(bb_device *dev, void *dst, const void *host, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    place *p = open_ahead(dev) ? &cuda->ahead->places[cuda->ahead->next++ % PLACES] : NULL;
    if (!p || (bytes > p->bytes && !grow(dev, p, bytes))) { /* no buffer: use copy_in */
        dev->ops->copy_in(dev, dst, host, bytes);
        return;
    }
    /* Waiting for an event that was never recorded returns at once. */
    bb_cuda_check(dev, cudaEventSynchronize(p->arrived), "a copy to the card"); /* the previous copy has left pinned memory */
    memcpy(p->pinned, host, bytes);
    bb_cuda_check(dev, cudaStreamWaitEvent(cuda->ahead->stream, p->taken, 0), "a copy to the card");
    bb_cuda_check(dev, cudaMemcpyAsync(p->on_card, p->pinned, bytes, cudaMemcpyHostToDevice, cuda->ahead->stream),
                  "a copy to the card");
    bb_cuda_check(dev, cudaEventRecord(p->arrived, cuda->ahead->stream), "a copy to the card");
    bb_cuda_check(dev, cudaStreamWaitEvent(cuda->stream, p->arrived, 0), "a copy to the card");
    bb_cuda_check(dev, cudaMemcpyAsync(dst, p->on_card, bytes, cudaMemcpyDeviceToDevice, cuda->stream), "a copy to the card");
    bb_cuda_check(dev, cudaEventRecord(p->taken, cuda->stream), "a copy to the card");
}
