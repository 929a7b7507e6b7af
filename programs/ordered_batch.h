// SPDX-License-Identifier: MIT
/* Runs requests of a bb_batch and delivers results in the order of the requests, although they end in any order. The first
 * unfinished one streams; results of later ones wait in memory. */
#ifndef BB_PROGRAMS_ORDERED_BATCH_H
#define BB_PROGRAMS_ORDERED_BATCH_H

#include "bitbyte.h"

typedef struct bb_ordered_item {
    struct bb_ordered_item *next;
    struct bb_ordered_run *run;
    int64_t number, id;
    void *data; /* owned by the caller until on_end or drop */
    /* the request: memory of the caller, used only until the next call of `next` */
    bb_bytes prompt;
    bb_generate_options options;
    /* the result */
    uint8_t *text; /* bytes not yet passed to on_byte; all bytes with `keep` */
    size_t length, capacity;
    bool ended;
    bb_finish finish;
    bb_generate_metrics metrics;
    bb_status failure;                             /* status of an error after `next` */
    char error[sizeof((bb_error *)NULL)->message]; /* set by `next` if the request cannot be made, else with BB_FINISH_ERROR */
} bb_ordered_item;

typedef struct bb_ordered {
    bool (*next)(void *user, bb_ordered_item *item); /* fills a request; false: no more requests */
    void (*on_begin)(void *user, bb_ordered_item *item);
    void (*on_byte)(void *user, bb_ordered_item *item, uint8_t byte); /* may be NULL */
    /* After a stop it is called for one more item, with BB_FINISH_CALLER, and not for those after it. */
    void (*on_end)(void *user, bb_ordered_item *item);
    void (*drop)(void *user, bb_ordered_item *item); /* called instead of on_end after a stop or an error; may be NULL */
    void (*on_read)(void *user, int64_t done, int64_t total); /* progress of the first prompt; may be NULL */
    bool (*stopped)(void *user);                              /* true ends everything */
    void *user;
    bool keep;
} bb_ordered;

bb_status bb_ordered_batch_run(const bb_ordered *ordered, bb_model *model, const bb_batch_options *options, bb_error *err);

#endif
