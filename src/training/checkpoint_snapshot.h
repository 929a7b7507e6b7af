// SPDX-License-Identifier: MIT
/* A snapshot: the model and the optimizer at one step, ready to be written. It is either a copy in the host's memory, or a view of
 * the live arrays, which must not change until the writer has read them.
 *
 * bb_snapshot_capture begins one, on the training thread. bb_checkpoint_write (checkpoint_write.h) writes it, on any thread where
 * the snapshot is a copy or bb_snapshot_is_local; it ends the copying and calls bb_snapshot_release as soon as it no longer needs
 * the live arrays. The training thread calls bb_snapshot_wait before it changes them.
 *
 * When ranks share the optimizer's state, rank 0 has the snapshot and every other rank calls bb_checkpoint_contribute. The file is the
 * same as that of a run on one rank. */
#ifndef BB_TRAINING_CHECKPOINT_SNAPSHOT_H
#define BB_TRAINING_CHECKPOINT_SNAPSHOT_H

#include <pthread.h>

#include "training/checkpoint_state.h"
#include "training/checkpoint_tensors.h"

/* The fields are for checkpoint_snapshot.c and checkpoint_write.c. */
typedef struct bb_snapshot {
    const bb_model *model;
    const bb_optimizer *optimizer; /* may be NULL */
    bb_device *device;
    bb_dist *dist; /* the ranks that share the optimizer's state, or NULL */
    bb_checkpoint_tensor *list;
    bb_file_tensor *tensors; /* (count), those of list, for the file */
    int count;
    bb_checkpoint_memory memory; /* what is written: the live arrays, or the copy */
    uint8_t *copy;               /* the parameters, then the state of each rank, laid out as on that rank; NULL: no copy */
    size_t copy_bytes;
    size_t *rank_offsets;     /* (ranks + 1) in copy: rank r's state is from rank_offsets[r] to rank_offsets[r + 1] */
    bb_optimizer_slot *slots; /* in copy */
    char *config_text, *state_text;
    const char *data_text, *run_config_text; /* borrowed from the training state */
    char length_text[16];
    pthread_mutex_t lock; /* of released */
    pthread_cond_t changed;
    bool released; /* the live arrays may change */
} bb_snapshot;

/* model and optimizer (may be NULL) outlive the snapshot. */
bb_status bb_snapshot_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_snapshot **out, bb_error *err);
void bb_snapshot_free(bb_snapshot *snapshot);

/* Captures the present step; until bb_snapshot_release, model and optimizer must not change. state NULL: a model file without
 * training state; its texts must stay valid until the file is written. Copies what is on other ranks or in a device's own memory;
 * the rest is left to bb_snapshot_finish_copy. */
bb_status bb_snapshot_capture(bb_snapshot *snapshot, const bb_training_state *state, bb_error *err);
/* Copies what capture left, then releases the live arrays. Does nothing to a snapshot that is no copy. */
void bb_snapshot_finish_copy(bb_snapshot *snapshot);
/* The live arrays are no longer needed. */
void bb_snapshot_release(bb_snapshot *snapshot);
/* Returns once the live arrays may change. */
void bb_snapshot_wait(bb_snapshot *snapshot);

/* What rank 0 receives for its copy, the state of another rank, goes in messages of so many bytes. */
enum { BB_SNAPSHOT_MESSAGE = 1 << 24 };

/* Bytes of all tensors. */
uint64_t bb_snapshot_bytes(const bb_snapshot *snapshot);
/* Whether all tensors are in this process and in the host's memory, so that another thread can read them. */
bool bb_snapshot_is_local(const bb_model *model, const bb_optimizer *optimizer);
/* Whether a copy of this many bytes is small beside the host's memory, so that it is made by default. */
bool bb_snapshot_copy_is_small(uint64_t bytes);

#endif
