// SPDX-License-Identifier: MIT
/* Passes (ops/optional.h) as CUDA graphs. The first time that a pass is begun, it runs as usual, because scratch memory may
 * grow. The second time, its launches are captured. From then on, one call launches the graph. BITBYTE_CUDA_GRAPHS=off turns
 * captures off. */
#include <stdlib.h>

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

enum { MAX_PASSES = 32 };

typedef struct recorded_pass {
    uint64_t key, used;    /* used: `clock` when the pass was last begun; 0: the entry is free */
    cudaGraphExec_t graph; /* NULL: begun only once */
} recorded_pass;

struct bb_cuda_passes {
    bool off, recording;
    uint64_t clock;
    recorded_pass passes[MAX_PASSES], *current;
};

static void forget(recorded_pass *p) {
    if (p->graph) (void)cudaGraphExecDestroy(p->graph);
    *p = {};
}

void bb_cuda_forget_passes(bb_cuda *cuda) {
    bb_cuda_passes *all = cuda->passes;
    if (!all) return;
    for (recorded_pass &p : all->passes) forget(&p);
    free(all);
    cuda->passes = NULL;
}

static bb_cuda_passes *passes_of(bb_cuda *cuda) {
    if (!cuda->passes) {
        const char *asked = getenv("BITBYTE_CUDA_GRAPHS");
        cuda->passes = (bb_cuda_passes *)calloc(1, sizeof *cuda->passes);
        if (cuda->passes) cuda->passes->off = asked && strcmp(asked, "off") == 0;
    }
    return cuda->passes;
}

/* Returns the pass with this key, or else the entry that was begun least recently. */
static recorded_pass *find(bb_cuda_passes *all, uint64_t key) {
    recorded_pass *oldest = &all->passes[0];
    for (recorded_pass &p : all->passes) {
        if (p.used && p.key == key) return &p;
        if (p.used < oldest->used) oldest = &p;
    }
    return oldest;
}

bool bb_cuda_pass_begin(bb_device *dev, uint64_t key, const int64_t *positions, int count) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_passes *all = passes_of(cuda);
    if (!all || all->off || count > BB_PASS_POSITIONS || cuda->failure.code != BB_OK) return false;
    recorded_pass *p = find(all, key);
    bool first = !p->used || p->key != key;
    if (first && p->graph) bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "a pass"); /* it may be running */
    if (first) {
        forget(p);
        p->key = key;
    }
    p->used = ++all->clock;
    if (first) return false;
    if (count > 0) dev->ops->copy_in(dev, cuda->positions, positions, (size_t)count * sizeof *positions);
    if (p->graph) {
        bb_cuda_check(dev, cudaGraphLaunch(p->graph, cuda->stream), "a recorded pass");
        return true;
    }
    if (!bb_cuda_check(dev, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal), "recording a pass"))
        return false;
    all->recording = true;
    all->current = p;
    cuda->recorded_positions = count;
    cuda->rotations = 0;
    return false;
}

void bb_cuda_pass_end(bb_device *dev) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_passes *all = cuda->passes;
    if (!all || !all->recording) return;
    cudaGraph_t graph = NULL;
    recorded_pass *p = all->current;
    all->recording = false;
    cuda->recorded_positions = 0;
    if (!bb_cuda_check(dev, cudaStreamEndCapture(cuda->stream, &graph), "recording a pass")) return;
    if (bb_cuda_check(dev, cudaGraphInstantiate(&p->graph, graph, 0), "a recorded pass"))
        bb_cuda_check(dev, cudaGraphLaunch(p->graph, cuda->stream), "a recorded pass");
    else
        p->graph = NULL;
    (void)cudaGraphDestroy(graph);
}
