// SPDX-License-Identifier: MIT
/* Parses the pickles that torch.save writes, as data: it knows the opcodes and the few types that such files need, calls
 * nothing, and refuses everything else by name. https://docs.python.org/3/library/pickletools.html */
#ifndef BB_MODELFILE_PICKLE_H
#define BB_MODELFILE_PICKLE_H

#include "modelfile/tensor_source.h"

typedef enum bb_pickle_kind {
    BB_PICKLE_NONE = 0,
    BB_PICKLE_BOOL,
    BB_PICKLE_INT,
    BB_PICKLE_FLOAT,
    BB_PICKLE_STRING,
    BB_PICKLE_LIST, /* also tuples */
    BB_PICKLE_DICT,
    BB_PICKLE_CLASS, /* a known type or function, which is not called */
    BB_PICKLE_STORAGE,
    BB_PICKLE_TENSOR
} bb_pickle_kind;

enum { BB_PICKLE_MAX_RANK = BB_FILE_MAX_RANK };

typedef struct bb_pickle_tensor {
    uint32_t storage; /* index of its value */
    int rank;
    int64_t offset, shape[BB_PICKLE_MAX_RANK], stride[BB_PICKLE_MAX_RANK]; /* in elements, like the shape and the strides */
} bb_pickle_tensor;

typedef struct bb_pickle_value {
    bb_pickle_kind kind;
    union {
        int64_t integer; /* BOOL, INT, CLASS */
        double real;
        char *text; /* STRING */
        struct {
            uint32_t *values; /* a dict has keys and values in turn */
            uint32_t count, capacity;
        } items;
        struct {
            uint32_t key; /* index of the value with the archive entry's name */
            bb_file_dtype dtype;
            int64_t count; /* number of elements */
        } storage;
        bb_pickle_tensor *tensor;
    } as;
} bb_pickle_value;

/* A parsed pickle. Values refer to one another by index, possibly in cycles. */
typedef struct bb_pickle {
    bb_pickle_value *values;
    uint32_t count, capacity, root;
} bb_pickle;

/* Parses a pickle. where: prefix of messages, which also give the byte. On failure there is nothing to free. */
bb_status bb_pickle_read(const uint8_t *data, size_t size, const char *where, bb_pickle *out, bb_error *err);
void bb_pickle_free(bb_pickle *pickle);

#endif
