// SPDX-License-Identifier: MIT
/* Checkpoints: the model's tensors under their own names, optimizer state under `opt.*`, and the training state as JSON in
 * the metadata, all in one safetensors file. A model file is the same without the last two. docs/FORMAT.md is normative. */
#ifndef BB_TRAINING_CHECKPOINT_H
#define BB_TRAINING_CHECKPOINT_H

#include "bitbyte.h"
#include "model/model.h"
#include "modelfile/tensor_source.h"
#include "training/optim.h"
#include "training/spikes.h"

/* Everything besides tensors that a resumed run needs to be the same run. */
typedef struct bb_training_state {
    int64_t step;     /* steps done */
    uint64_t samples; /* samples seen by the whole job: the data position */
    int64_t bytes_seen;
    int64_t skipped_steps, skipped_micro_batches;
    int64_t optimizer_steps; /* updates applied: the bias corrections count these */
    int trained_length;      /* longest seq_len so far */
    double scaler_scale;     /* 0: no scaler */
    int scaler_good_steps;
    int64_t skipped_in_a_row; /* the newest steps, without one that was applied */
    bb_spike_window spikes;   /* count 0 where spikes are not looked for */
    bool moments_widened;     /* by load: the file is of version 0.1.0, with 8-bit moments that are f32 now */
    bb_sampling sampling;
    const char *data, *run_config; /* texts that each checkpoint keeps, borrowed; NULL: none. bb_checkpoint_text reads them */
} bb_training_state;

#define BB_CHECKPOINT_DATA "data"
#define BB_CHECKPOINT_RUN_CONFIG "run_config"

/* What a checkpoint will hold. With `copy` it is copied to memory of the host, by take (what is not in the host's memory, or is
 * on other ranks) and by copy (the rest), and write needs neither model nor optimizer nor device. Without `copy`, take notes
 * the state alone, and write reads the tensors. copy may be called by another thread, and so may write, without `copy` where
 * the tensors are in this process and in the host's memory (bb_checkpoint_is_here), as long as nothing changes model and
 * optimizer before copy has returned, or write has called on_read (NULL: nothing is called). An optimizer whose state is shared
 * out over ranks has its image on rank 0; the others help, with a contribute for each take (with `copy`) or write (without).
 * What comes out is the same file as of a state in one place. */
typedef struct bb_checkpoint_image bb_checkpoint_image;
bb_status bb_checkpoint_image_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_checkpoint_image **out,
                                     bb_error *err);
void bb_checkpoint_image_free(bb_checkpoint_image *image);
bb_status bb_checkpoint_image_take(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer,
                                   const bb_training_state *state, bb_error *err);
void bb_checkpoint_image_copy(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer);
bb_status bb_checkpoint_image_write(const bb_checkpoint_image *image, const char *path, void (*on_read)(void *user), void *user,
                                    bb_error *err);
/* Bytes of all tensors that it writes. */
uint64_t bb_checkpoint_image_bytes(const bb_checkpoint_image *image);
bool bb_checkpoint_is_here(const bb_model *model, const bb_optimizer *optimizer);
/* Whether a copy of so many bytes is made where nobody says so: not where it is large beside the host's memory. */
bool bb_checkpoint_is_copied(uint64_t bytes);
/* Whether those options make one. shared_out: what is on other ranks can't be read by a thread, so then a copy is better. */
bool bb_checkpoint_copies(const bb_train_options *options, uint64_t bytes, bool shared_out);

/* On the ranks but 0: sends what they hold of the optimizer's state. */
bb_status bb_checkpoint_contribute(const bb_optimizer *optimizer, bool copy, bb_error *err);

/* optimizer and state may be NULL: then a model file. */
bb_status bb_checkpoint_save(const char *path, const bb_model *model, const bb_optimizer *optimizer,
                             const bb_training_state *state, bb_error *err);
/* Into an existing model of the same configuration (else an error that names both values). optimizer NULL: its state is not
 * read. A file without training state gives a zero state. Nothing is changed unless all of the file is good. */
bb_status bb_checkpoint_load(const char *path, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                             bb_error *err);

/* A text of the metadata, malloc'd; NULL where the file has none of that key. */
bb_status bb_checkpoint_text(const char *path, const char *key, char **out, bb_error *err);

/* Parts of reading. A file without training state gives a zero one, of the optimizer "none". */
bb_status bb_checkpoint_read_state(const bb_tensor_source *st, bb_training_state *out, char *optimizer, size_t optimizer_size,
                                   bb_error *err);

#endif
