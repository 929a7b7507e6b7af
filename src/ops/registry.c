// SPDX-License-Identifier: MIT
/* The registry of backends by name, and the public functions to open devices. */
#include "ops/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/host.h"
#include "ops/optional.h"

static const bb_backend cpu = {.name = "cpu", .open = bb_device_open_cpu};
static const bb_backend cuda = {
    .name = "cuda", .open_at = bb_device_open_cuda, .count = bb_device_cuda_count, .unavailable = bb_device_cuda_unavailable};
static const bb_backend ref = {.name = "ref", .open = bb_device_open_ref};

/* The first is the programs' default. */
static const bb_backend *backends[BB_MAX_BACKENDS] = {&cpu, &cuda, &ref};

static const bb_backend *find(const char *name) {
    for (int i = 0; name && i < BB_MAX_BACKENDS && backends[i]; i++)
        if (strcmp(backends[i]->name, name) == 0) return backends[i];
    return NULL;
}

/* The backend of "NAME" or, where there may be several devices, "NAME:INDEX", up to 99. */
static const bb_backend *find_device(const char *name, int *index) {
    const bb_backend *backend = find(name);
    *index = 0;
    const char *colon = name ? strchr(name, ':') : NULL;
    if (backend || !colon) return backend;
    size_t digits = strspn(colon + 1, "0123456789");
    char base[32];
    if (digits < 1 || digits > 2 || colon[1 + digits] || (size_t)(colon - name) >= sizeof base) return NULL;
    memcpy(base, name, (size_t)(colon - name));
    base[colon - name] = '\0';
    *index = atoi(colon + 1);
    backend = find(base);
    return backend && backend->open_at ? backend : NULL;
}

static const char *unavailable(const bb_backend *backend) { return backend->unavailable ? backend->unavailable() : NULL; }

/* Writes "cpu" and "ref", or however many names there are. */
static void list_names(char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < BB_MAX_BACKENDS && backends[i] && used < size; i++) {
        bool last = i + 1 == BB_MAX_BACKENDS || !backends[i + 1];
        used += (size_t)snprintf(out + used, size - used, "%s\"%s\"", i == 0 ? "" : last ? " and " : ", ", backends[i]->name);
    }
}

bb_status bb_backend_register(const bb_backend *backend, bb_error *err) {
    if (find(backend->name)) return bb_fail(err, BB_ERR_ARGUMENT, "there is a device named \"%s\" already", backend->name);
    for (int i = 0; i < BB_MAX_BACKENDS; i++) {
        if (backends[i]) continue;
        backends[i] = backend;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_UNSUPPORTED, "device \"%s\" would be one more than %d", backend->name, BB_MAX_BACKENDS);
}

const char *bb_device_known(int index, const char **why_not) {
    const bb_backend *backend = index >= 0 && index < BB_MAX_BACKENDS ? backends[index] : NULL;
    if (why_not) *why_not = backend ? unavailable(backend) : NULL;
    return backend ? backend->name : NULL;
}

int bb_device_count(const char *name) {
    const bb_backend *backend = find(name);
    return backend && backend->count && !unavailable(backend) ? backend->count() : 1;
}

bb_status bb_device_init_lock(bb_device *dev, bb_error *err) {
    pthread_mutexattr_t recursive;
    if (pthread_mutexattr_init(&recursive) == 0 && pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE) == 0 &&
        pthread_mutex_init(&dev->lock, &recursive) == 0)
        return BB_OK;
    return bb_fail(err, BB_ERR_MEMORY, "no memory for the lock of device \"%s\"", dev->ops->name);
}

bb_status bb_device_open(const char *name, int threads, bb_device **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    if (threads < 0 || threads > BB_MAX_THREADS)
        return bb_fail(err, BB_ERR_ARGUMENT, "threads is %d; it must be from 1 to %d, or 0 for what the process may use",
                       threads, BB_MAX_THREADS);
    int index;
    const bb_backend *backend = find_device(name, &index);
    if (!backend) {
        char names[160];
        list_names(names, sizeof names);
        return bb_fail(err, BB_ERR_ARGUMENT, "no device is named \"%s\"; there are %s", name ? name : "", names);
    }
    const char *why_not = unavailable(backend);
    if (why_not) return bb_fail(err, BB_ERR_UNSUPPORTED, "device \"%s\" cannot be used: %s", name, why_not);
    if (threads == 0) threads = bb_host_threads("", 1);
    BB_TRY(backend->open_at ? backend->open_at(index, threads, out, err) : backend->open(threads, out, err));
    bb_status status = bb_device_init_lock(*out, err);
    if (status == BB_OK) return BB_OK;
    (*out)->ops->close(*out);
    *out = NULL;
    return status;
}

void bb_device_close(bb_device *device) {
    if (!device) return;
    (void)pthread_mutex_destroy(&device->lock);
    device->ops->close(device);
}

const char *bb_device_name(const bb_device *device) { return device ? device->ops->name : NULL; }

int bb_device_threads(const bb_device *device) { return device ? device->threads : 0; }

/* ---- activations ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    bb_dtype dtype;
} activations[] = {{"f32", BB_F32}, {"bf16", BB_BF16}, {"fp16", BB_F16}};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

const char *bb_device_activations(const bb_device *device) {
    for (int i = 0; i < ACTIVATIONS && device; i++)
        if (activations[i].dtype == device->ops->act_dtype) return activations[i].name;
    return NULL;
}

bb_status bb_device_set_activations(bb_device *device, const char *type, bb_error *err) {
    BB_REQUIRE("device, type", device, type);
    BB_DEVICE_SCOPE(device);
    int i = 0;
    while (i < ACTIVATIONS && strcmp(activations[i].name, type) != 0) i++;
    if (i == ACTIVATIONS) return bb_fail(err, BB_ERR_ARGUMENT, "activations \"%s\": expected f32, bf16 or fp16", type);
    if (activations[i].dtype == device->ops->act_dtype) return BB_OK;
    const bb_optional_ops *optional = device->ops->optional;
    if (optional && optional->set_act_dtype) return optional->set_act_dtype(device, activations[i].dtype, err);
    return bb_fail(err, BB_ERR_UNSUPPORTED, "device \"%s\" keeps activations in %s, not %s: device \"cuda\" alone has a choice",
                   device->ops->name, bb_device_activations(device), type);
}

const char *bb_device_description(const bb_device *device) { return device ? device->ops->description(device) : NULL; }

void bb_device_memory(const bb_device *device, uint64_t *total_bytes, uint64_t *free_bytes) {
    uint64_t total = 0, available = 0;
    if (device) device->ops->memory(device, &total, &available);
    if (total_bytes) *total_bytes = total;
    if (free_bytes) *free_bytes = available;
}
