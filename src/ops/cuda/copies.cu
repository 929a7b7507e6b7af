// SPDX-License-Identifier: MIT
/* Copies to the card that do not wait for what it computes: through pinned memory and a stream of their own to places on the card, from
 * where the device's stream takes them when it is their turn. So while a micro-batch is computed, the next ones arrive. */
#include <stdlib.h>

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

/* Copies under way: of a batch there are two (bytes, and what follows them), or three with n-grams. */
enum { PLACES = 6 };

typedef struct place {
    size_t bytes;
    void *pinned, *on_card;
    cudaEvent_t arrived; /* on the stream of copies */
    cudaEvent_t taken;   /* on the device's */
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

/* Both are done with what the place holds. */
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
    if (!p || (bytes > p->bytes && !grow(dev, p, bytes))) { /* little memory: without */
        dev->ops->copy_in(dev, dst, host, bytes);
        return;
    }
    /* An event that was not recorded yet is waited for by nobody. */
    bb_cuda_check(dev, cudaEventSynchronize(p->arrived), "a copy to the card"); /* the copy before has left the pinned memory */
    memcpy(p->pinned, host, bytes);
    bb_cuda_check(dev, cudaStreamWaitEvent(cuda->ahead->stream, p->taken, 0), "a copy to the card");
    bb_cuda_check(dev, cudaMemcpyAsync(p->on_card, p->pinned, bytes, cudaMemcpyHostToDevice, cuda->ahead->stream),
                  "a copy to the card");
    bb_cuda_check(dev, cudaEventRecord(p->arrived, cuda->ahead->stream), "a copy to the card");
    bb_cuda_check(dev, cudaStreamWaitEvent(cuda->stream, p->arrived, 0), "a copy to the card");
    bb_cuda_check(dev, cudaMemcpyAsync(dst, p->on_card, bytes, cudaMemcpyDeviceToDevice, cuda->stream), "a copy to the card");
    bb_cuda_check(dev, cudaEventRecord(p->taken, cuda->stream), "a copy to the card");
}
