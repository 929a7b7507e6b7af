// SPDX-License-Identifier: MIT
/* Devices by name: the public face of the backends. */
#include <string.h>

#include "core/host.h"
#include "ops/ops.h"

enum { MAX_THREADS = 1024 };

bb_status bb_device_open(const char *name, int threads, bb_device **out, bb_error *err) {
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return bb_fail(err, BB_ERR_ARGUMENT, "threads is %d; it must be from 1 to %d, or 0 for what the process may use",
                       threads, MAX_THREADS);
    if (name && strcmp(name, "cpu") == 0) return bb_device_open_cpu(threads ? threads : bb_host_cpus(""), out, err);
    if (name && strcmp(name, "ref") == 0) return bb_device_open_ref(out, err);
    return bb_fail(err, BB_ERR_ARGUMENT, "no device is named \"%s\"; there are \"cpu\" and \"ref\"", name ? name : "");
}

void bb_device_close(bb_device *device) {
    if (device) device->ops->close(device);
}

const char *bb_device_name(const bb_device *device) { return device->ops->name; }

int bb_device_threads(const bb_device *device) { return device->threads; }

const char *bb_device_description(const bb_device *device) { return device->description; }

void bb_device_memory(const bb_device *device, uint64_t *total_bytes, uint64_t *free_bytes) {
    (void)device; /* both backends live in the host's memory */
    bb_host_memory("", total_bytes, free_bytes);
}
