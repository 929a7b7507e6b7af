// SPDX-License-Identifier: MIT
/* The backends that bb_device_open knows, by name. To add a backend, add a row to the table in registry.c. */
#ifndef BB_OPS_REGISTRY_H
#define BB_OPS_REGISTRY_H

#include "ops/ops.h"

typedef struct bb_backend {
    const char *name;
    /* threads >= 1; a backend may use fewer. */
    bb_status (*open)(int threads, bb_device **out, bb_error *err);
    /* In place of open, for devices of which there may be several: "NAME" is index 0, and "NAME:2" index 2. count: how many there
     * are. */
    bb_status (*open_at)(int index, int threads, bb_device **out, bb_error *err);
    int (*count)(void);
    /* Returns NULL if the backend can be opened, otherwise why this build or machine cannot and what to do about it: one clause
     * without a period. A NULL function: always available. */
    const char *(*unavailable)(void);
} bb_backend;

enum { BB_MAX_BACKENDS = 8 };

/* Registers a backend from outside the library. *backend is not copied. BB_ERR_ARGUMENT if the name is taken,
 * BB_ERR_UNSUPPORTED if the table is full. Do not call while another thread opens a device. */
bb_status bb_backend_register(const bb_backend *backend, bb_error *err);

/* How many devices "NAME" stands for: 1 where that is not a choice of one of several, or `name` already says which. */
int bb_device_count(const char *name);

bb_status bb_device_open_cpu(int threads, bb_device **out, bb_error *err);
bb_status bb_device_open_ref(int threads, bb_device **out, bb_error *err);
bb_status bb_device_open_cuda(int index, int threads, bb_device **out, bb_error *err);
const char *bb_device_cuda_unavailable(void);
int bb_device_cuda_count(void);

#endif
