// SPDX-License-Identifier: MIT
/* Requests of a bb_batch whose results are used in the order in which they were made, though they end in any order. The first that
 * has not ended streams; what later ones give waits in memory. */
#ifndef BB_PROGRAMS_ORDERED_BATCH_H
#define BB_PROGRAMS_ORDERED_BATCH_H

#include "bitbyte.h"

typedef struct bb_ordered_item {
    struct bb_ordered_item *next;
    struct bb_ordered_run *run;
    int64_t number, id;
    void *data; /* the caller's, until on_end or drop */
    /* the request: the caller's memory, in use only until the next call of `next` */
    bb_bytes prompt;
    bb_generate_options options;
    /* the result */
    uint8_t *text; /* what has not been passed to on_byte; all of it with `keep` */
    size_t length, capacity;
    bool ended;
    bb_finish finish;
    bb_generate_metrics metrics;
    char error[sizeof((bb_error *)NULL)->message]; /* set by `next`: the request is not made; else with BB_FINISH_ERROR */
} bb_ordered_item;

typedef struct bb_ordered {
    bool (*next)(void *user, bb_ordered_item *item); /* fills a request; false: there are no more */
    void (*on_begin)(void *user, bb_ordered_item *item);
    void (*on_byte)(void *user, bb_ordered_item *item, uint8_t byte); /* may be NULL */
    /* On a stop it is called for one more item, with BB_FINISH_CALLER, and not for those after it. */
    void (*on_end)(void *user, bb_ordered_item *item);
    void (*drop)(void *user, bb_ordered_item *item);          /* in place of on_end, after a stop or an error; may be NULL */
    void (*on_read)(void *user, int64_t done, int64_t total); /* of the first prompt; may be NULL */
    bool (*stopped)(void *user);                              /* ends everything */
    void *user;
    bool keep;
} bb_ordered;

bb_status bb_ordered_batch_run(const bb_ordered *ordered, bb_model *model, const bb_batch_options *options, bb_error *err);

#endif
