// SPDX-License-Identifier: MIT
/* The backends that bb_device_open knows, by name. A further backend adds a row to the table in registry.c. */
#ifndef BB_OPS_REGISTRY_H
#define BB_OPS_REGISTRY_H

#include "ops/ops.h"

typedef struct bb_backend {
    const char *name;
    /* threads >= 1; a backend may use fewer. */
    bb_status (*open)(int threads, bb_device **out, bb_error *err);
    /* NULL, or why this build or this machine cannot open it and what to do about it: one clause without a period. A NULL
     * function: it can always be opened. */
    const char *(*unavailable)(void);
} bb_backend;

enum { BB_MAX_BACKENDS = 8 };

/* Adds a backend that the library does not come with. *backend is not copied. A name that is taken is BB_ERR_ARGUMENT, a full
 * table BB_ERR_UNSUPPORTED. Not while another thread opens a device. */
bb_status bb_backend_register(const bb_backend *backend, bb_error *err);

bb_status bb_device_open_cpu(int threads, bb_device **out, bb_error *err);
bb_status bb_device_open_ref(int threads, bb_device **out, bb_error *err);

#endif
