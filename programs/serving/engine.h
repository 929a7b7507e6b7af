// SPDX-License-Identifier: MIT
/* The thread that runs the model: requests join the batch, receive their bytes, and leave it. The engine knows nothing about
 * HTTP; it calls `wake` when a waiting connection can continue. */
#ifndef BB_PROGRAMS_ENGINE_H
#define BB_PROGRAMS_ENGINE_H

#include "request.h"

typedef struct bb_engine bb_engine;

/* A loaded model, and what the server says of it. */
typedef struct bb_engine_model {
    bb_model *model;
    char path[4096];   /* of its file */
    char *description; /* JSON of bb_describe_file, to be freed with bb_string_free; NULL: none */
} bb_engine_model;

typedef struct bb_engine_options {
    /* Loads the model, at the start and at each reload; runs on its own thread. *out is zeroed. */
    bb_status (*load)(void *user, bb_engine_model *out, bb_error *err);
    /* Called with the lock held: wakes a waiting connection; returns whether the client of a waiting one has disconnected. */
    void (*wake)(void *connection);
    bool (*has_left)(bb_request *request);
    void (*log)(void *user, const char *event, const char *detail);
    void *user;
    int sequences, queue; /* maximum texts at once; maximum waiting texts */
    uint64_t cache_bytes; /* 0: no limit */
    double timeout;       /* time limit for a request in seconds; 0: no limit */
} bb_engine_options;

/* Returns after the model has been loaded. */
bb_status bb_engine_open(const bb_engine_options *options, bb_engine **out, bb_error *err);
/* Cancels running requests. */
void bb_engine_close(bb_engine *engine);

typedef enum bb_submitted { BB_SUBMITTED, BB_QUEUE_FULL, BB_DRAINING, BB_ENGINE_FAILED } bb_submitted;
/* After BB_SUBMITTED the engine holds a reference, too. */
bb_submitted bb_engine_submit(bb_engine *engine, bb_request *request);
/* Drops the connection's reference; what still runs for it is cancelled. */
void bb_engine_release(bb_engine *engine, bb_request *request);

/* Must be held while the outputs of a request are read. */
void bb_engine_lock(bb_engine *engine);
void bb_engine_unlock(bb_engine *engine);

/* Loads the model again; running requests keep theirs, later ones use the new one. */
void bb_engine_reload(bb_engine *engine);
/* Refuses new requests, and waits up to `seconds` for running ones; then cancels them. Returns false if any were cancelled. */
bool bb_engine_drain(bb_engine *engine, double seconds);

/* The current model. */
typedef struct bb_engine_info {
    bb_config config;
    uint64_t parameters;
    int trained_length;
    char chat_template[BB_MAX_CHAT_TEMPLATE + 1]; /* "": none */
    char path[4096];
    int64_t loaded; /* load time, seconds since 1970 */
} bb_engine_info;
bb_engine_info bb_engine_get_info(bb_engine *engine);
/* Returns a malloc'd copy of the current model's description, or NULL if out of memory. */
char *bb_engine_describe(bb_engine *engine);

typedef struct bb_engine_counts {
    int64_t prompt_bytes, new_bytes, shared_bytes, steps, requests, rejected, cancelled, timed_out, failed, reloads;
    double prompt_seconds, new_seconds, busy_slots; /* busy_slots: sum over steps */
    int active, waiting;                            /* current number of texts */
    uint64_t cache_bytes;
    bool draining, failed_now;
} bb_engine_counts;
bb_engine_counts bb_engine_get_counts(bb_engine *engine);

#endif
