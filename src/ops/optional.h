// SPDX-License-Identifier: MIT
/* Entries of the operation table that a backend need not have. */
#ifndef BB_OPS_OPTIONAL_H
#define BB_OPS_OPTIONAL_H

#include "ops/ops.h"

enum { BB_PEERS_ID_BYTES = 128, BB_PEERS_MAX = 256 };

/* Bytes of the device's memory for another rank, or from it. */
typedef struct bb_peer_message {
    void *data;
    size_t bytes;
    int rank;
    bool receive;
} bb_peer_message;

typedef struct bb_optional_ops {
    /* -- activations ------------------------------------------------------------------------------------------------------------- */
    /* Changes ops->act_dtype, of a device that nothing was allocated on. BB_ERR_UNSUPPORTED, saying why: it cannot be that. */
    bb_status (*set_act_dtype)(bb_device *dev, bb_dtype act, bb_error *err);

    /* -- copies ahead ------------------------------------------------------------------------------------------------------------ */
    /* copy_in, which waits for neither the copy nor what was started before, and copies while that still computes: dst is then written
     * where copy_in would have written it. */
    void (*copy_ahead)(bb_device *dev, void *dst, const void *host, size_t bytes);

    /* -- passes: operations that are started again and again with the same arguments, and may be recorded ------------------------ */
    /* Begins a pass. The same key, a hash, means the same operations with the same arguments, but for `positions` (count): those of
     * its sequences, which bb_kv_batch has in this order, and for each of which rope_forward is called once a layer, likewise. Within a
     * pass nothing is copied from or to the host, and nothing waits. true: it was started from a recording; the caller skips to the end. */
    bool (*pass_begin)(bb_device *dev, uint64_t key, const int64_t *positions, int count);
    void (*pass_end)(bb_device *dev);

    /* -- devices of other processes, reached without the host's memory: peers ---------------------------------------------------- */
    /* Ranks of the group that the device is in; 0: it is in none. */
    int (*peers_joined)(const bb_device *dev);
    /* Writes the id of a new group to id (BB_PEERS_ID_BYTES of host memory). BB_ERR_UNSUPPORTED, saying why: others cannot be reached. */
    bb_status (*peers_id)(bb_device *dev, unsigned char *id, bb_error *err);
    /* Joins a group of `size` ranks, at most BB_PEERS_MAX; returns when all have. May be called by another thread than the device's,
     * which waits. */
    bb_status (*peers_join)(bb_device *dev, const unsigned char *id, int rank, int size, bb_error *err);
    /* Gives up what is under way. why (may be NULL): for the device's description, if there will be no other group. */
    void (*peers_leave)(bb_device *dev, const char *why);
    /* Starts messages after all work that was started before, and beside what is started later. The nth message for a rank is its nth
     * from this one, and as long. Exchanges and sums are done one after the other. */
    void (*peers_exchange)(bb_device *dev, const bb_peer_message *messages, int count);
    /* out = the sum of parts (count), n f32 each, in the order of dist's tree sum: an even count is the sum of its halves, an odd one is
     * summed in order. out may be one of the parts. */
    void (*peers_sum)(bb_device *dev, float *out, float *const *parts, int count, int64_t n);
    /* *done: whether all of that is done; then work that is started afterwards sees it. Never waits. */
    bb_status (*peers_poll)(bb_device *dev, bool *done, bb_error *err);
} bb_optional_ops;

/* ---- for callers: without these entries, a pass is its operations ------------------------------------------------------------ */

enum { BB_PASS_POSITIONS = 32 };

static inline bool bb_pass_begin(bb_device *dev, uint64_t key, const int64_t *positions, int count) {
    const bb_optional_ops *o = dev->ops->optional;
    return o && o->pass_begin && o->pass_begin(dev, key, positions, count);
}

static inline void bb_copy_ahead(bb_device *dev, void *dst, const void *host, size_t bytes) {
    const bb_optional_ops *o = dev->ops->optional;
    (o && o->copy_ahead ? o->copy_ahead : dev->ops->copy_in)(dev, dst, host, bytes);
}

static inline void bb_pass_end(bb_device *dev) {
    if (dev->ops->optional && dev->ops->optional->pass_end) dev->ops->optional->pass_end(dev);
}

#endif
