// SPDX-License-Identifier: MIT
/* Shared by all topics: status codes and errors, option structs, devices. */
#ifndef BITBYTE_BASE_H
#define BITBYTE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BB_VISIBLE __attribute__((visibility("default")))
#else
#define BB_VISIBLE
#endif
#ifdef __cplusplus
#define BB_API extern "C" BB_VISIBLE
#else
#define BB_API BB_VISIBLE
#endif

/* ---- Status -------------------------------------------------------------------------------------------------------------- */

typedef enum bb_status {
    BB_OK = 0,
    BB_ERR_ARGUMENT,    /* invalid argument; the message names it and the permitted values */
    BB_ERR_IO,          /* system error: missing file, no permission, full disk */
    BB_ERR_FORMAT,      /* malformed file; the message says where */
    BB_ERR_DATA,        /* no usable training or evaluation data */
    BB_ERR_MEMORY,      /* not enough memory */
    BB_ERR_UNSUPPORTED, /* not in this build or not on this processor; the message says how to get it */
    BB_ERR_NUMERIC,     /* training diverged: the values are no longer finite */
    BB_ERR_INTERRUPTED, /* stopped at the caller's request */
    BB_ERR_INTERNAL,    /* a bug in this library, or a failure in one it uses */
    BB_ERR_PEER         /* another process of the job, its host, or the network failed */
} bb_status;

typedef struct bb_error {
    bb_status code;
    char message[1024]; /* one line without newline: what, where, expected, found */
} bb_error;

BB_API const char *bb_status_name(bb_status status);
BB_API const char *bb_version(void); /* "0.1.0" */

/* ---- Option structs ------------------------------------------------------------------------------------------------------ */

/* Options begin with struct_size, their size as the caller was compiled. bb_X_default sets it and every member's default; then
 * change what you like. (An initializer {.struct_size = sizeof(bb_X), …} works, too, if the rest may be 0.) This lets callers
 * and libraries of different versions work together: members that an older caller does not have get their defaults, and a
 * member that only the caller knows is BB_ERR_ARGUMENT if any byte of it is not 0, as is a size that no version has. New
 * members come last. Other structs keep their layout within a major version. Bindings call bb_X_init with the size of their own
 * struct, as bb_X_default does. */
#define BB_OPTIONS(type)                                                                                                       \
    BB_API void type##_init(struct type *options, size_t struct_size);                                                         \
    static inline void type##_default(struct type *options) { type##_init(options, sizeof(struct type)); }                     \
    struct type

/* ---- Texts --------------------------------------------------------------------------------------------------------------- */

typedef struct bb_bytes {
    const uint8_t *data;
    size_t size;
} bb_bytes;
BB_API void bb_string_free(char *text); /* frees texts that the library returns */
/* Convert a path to UTF-8 and back. If it is not UTF-8 or contains "\x", bytes above 0x7f and backslashes become \xHH. Free the
 * result with bb_string_free; NULL: out of memory. */
BB_API char *bb_path_text(const char *path);
BB_API char *bb_path_from_text(const char *text);

/* ---- Device -------------------------------------------------------------------------------------------------------------- */

typedef struct bb_device bb_device;

/* name: "cpu" (oneDNN and SIMD), "cuda" (an NVIDIA card, if this build has CUDA; "cuda:1" is the second one) or "ref" (scalar
 * reference implementation; slow). threads: 0 uses OMP_NUM_THREADS if set, else the smaller of the affinity mask and the cgroup
 * CPU quota, rounded up. Results do not depend on it. Close a device after everything created on it. Threads may share a device
 * if each has its own models, layers and sessions; calls then run one at a time, and bb_trainer_train, bb_evaluate and
 * bb_generate release the device between steps, batches and passes, and during callbacks. To compute in parallel, open one
 * device per thread, each with some of the processors. */
BB_API bb_status bb_device_open(const char *name, int threads, bb_device **out, bb_error *err);
BB_API void bb_device_close(bb_device *device);
/* Returns the name of known device `index`, or NULL past the last. *why_not (may be NULL): why it cannot be opened here, or
 * NULL. */
BB_API const char *bb_device_known(int index, const char **why_not);
BB_API const char *bb_device_name(const bb_device *device);
BB_API int bb_device_threads(const bb_device *device);
/* Returns the type of activations that are kept for the backward pass, and of gradients between operations: "f32", "bf16" or "fp16". */
BB_API const char *bb_device_activations(const bb_device *device);
/* Changes this type; call it before anything is created on the device. Only cuda has a choice: bf16, or fp16, which cards before
 * compute capability 8.0 require and which needs a bb_loss_scaler. BB_ERR_UNSUPPORTED: the device does not support this type. */
BB_API bb_status bb_device_set_activations(bb_device *device, const char *type, bb_error *err);
/* Returns the instruction set and library in use, on one line, e.g. "avx512_amx, oneDNN 2.6.3". */
BB_API const char *bb_device_description(const bb_device *device);
/* Returns total and free device memory in bytes; both 0 if unknown (no /proc). */
BB_API void bb_device_memory(const bb_device *device, uint64_t *total_bytes, uint64_t *free_bytes);
/* The same for host memory, as far as this process may use it. */
BB_API void bb_host_memory_bytes(uint64_t *total_bytes, uint64_t *free_bytes);

#endif
