// SPDX-License-Identifier: MIT
#include "modelfile/pickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROTOCOL = 5, NOTHING = -1 };

/* Everything that a pickle may refer to by name. */
typedef enum class { ORDERED_DICT = 0, SIZE, REBUILD_TENSOR, REBUILD_PARAMETER, GALORE_PROJECTOR, FIRST_STORAGE } class;

static const struct {
    const char *module, *name;
    bb_file_dtype dtype; /* element type of a storage */
} classes[] = {{"collections", "OrderedDict", BB_FILE_F32},
               {"torch", "Size", BB_FILE_F32},
               {"torch._utils", "_rebuild_tensor_v2", BB_FILE_F32},
               {"torch._utils", "_rebuild_parameter", BB_FILE_F32},
               {"galore_torch.galore_projector", "GaLoreProjector", BB_FILE_F32},
               {"torch", "FloatStorage", BB_FILE_F32},
               {"torch", "HalfStorage", BB_FILE_F16},
               {"torch", "BFloat16Storage", BB_FILE_BF16},
               {"torch", "DoubleStorage", BB_FILE_F64},
               {"torch", "CharStorage", BB_FILE_I8},
               {"torch", "ByteStorage", BB_FILE_U8},
               {"torch", "IntStorage", BB_FILE_I32},
               {"torch", "LongStorage", BB_FILE_I64},
               {"torch", "BoolStorage", BB_FILE_BOOL}};

typedef struct indices {
    uint32_t *at;
    size_t count, capacity;
} indices;

typedef struct reader {
    const uint8_t *data;
    size_t size, at, op_at; /* op_at: offset of the current operation, for messages */
    const char *where;
    bb_pickle *pickle;
    indices stack, marks; /* stack: value indices; marks: stack heights */
    indices memo;         /* value index + 1; 0: not set */
    bb_error *err;
} reader;

static bb_status bad(const reader *r, const char *what) {
    return bb_fail(r->err, BB_ERR_FORMAT, "%s: pickle, byte %zu: %s", r->where, r->op_at, what);
}

static bb_status no_memory(const reader *r) { return bb_fail(r->err, BB_ERR_MEMORY, "%s: no memory to read it", r->where); }

/* ---- values, stack and memo ---------------------------------------------------------------------------------------------- */

static bb_status push_index(const reader *r, indices *list, uint32_t value) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        uint32_t *grown = realloc(list->at, capacity * sizeof *grown);
        if (!grown) return no_memory(r);
        list->at = grown;
        list->capacity = capacity;
    }
    list->at[list->count++] = value;
    return BB_OK;
}

static bb_status push(reader *r, bb_pickle_value value) {
    bb_pickle *p = r->pickle;
    if (p->count == p->capacity) {
        uint32_t capacity = p->capacity ? 2 * p->capacity : 256;
        bb_pickle_value *grown = capacity > p->capacity ? realloc(p->values, capacity * sizeof *grown) : NULL;
        if (!grown) return no_memory(r);
        p->values = grown;
        p->capacity = capacity;
    }
    p->values[p->count] = value;
    return push_index(r, &r->stack, p->count++);
}

static size_t stack_floor(const reader *r) { return r->marks.count ? r->marks.at[r->marks.count - 1] : 0; }

static bb_status pop(reader *r, uint32_t *out) {
    if (r->stack.count <= stack_floor(r)) return bad(r, "pops a value from an empty stack");
    *out = r->stack.at[--r->stack.count];
    return BB_OK;
}

/* Pops the last mark and returns the stack height at it. */
static bb_status pop_mark(reader *r, size_t *first) {
    if (r->marks.count == 0) return bad(r, "the stack has no mark");
    *first = r->marks.at[--r->marks.count];
    return BB_OK;
}

static bb_pickle_value *value_at(const reader *r, uint32_t index) { return &r->pickle->values[index]; }

static bb_status expect(const reader *r, uint32_t index, bb_pickle_kind kind, const char *what) {
    return value_at(r, index)->kind == kind ? BB_OK : bad(r, what);
}

static bb_status append(reader *r, uint32_t list, const uint32_t *values, size_t count) {
    bb_pickle_value *v = value_at(r, list);
    uint64_t needed = (uint64_t)v->as.items.count + count;
    if (needed > v->as.items.capacity) {
        uint64_t capacity = needed + needed / 2;
        uint32_t *grown = capacity <= UINT32_MAX ? realloc(v->as.items.values, capacity * sizeof *grown) : NULL;
        if (!grown) return no_memory(r);
        v->as.items.values = grown;
        v->as.items.capacity = (uint32_t)capacity;
    }
    if (count) memcpy(v->as.items.values + v->as.items.count, values, count * sizeof *values);
    v->as.items.count = (uint32_t)needed;
    return BB_OK;
}

/* Replaces the top `count` values of the stack by a list or dict of them. */
static bb_status collect(reader *r, bb_pickle_kind kind, size_t first) {
    size_t count = r->stack.count - first;
    if (kind == BB_PICKLE_DICT && count % 2) return bad(r, "a dict of an odd number of keys and values");
    BB_TRY(push(r, (bb_pickle_value){.kind = kind}));
    uint32_t made = r->stack.at[--r->stack.count];
    BB_TRY(append(r, made, r->stack.at + first, count));
    r->stack.count = first;
    return push_index(r, &r->stack, made);
}

/* Adds the values after the mark to the list or dict before it. */
static bb_status add_marked(reader *r, bb_pickle_kind kind) {
    size_t first = 0;
    BB_TRY(pop_mark(r, &first));
    if (first <= stack_floor(r)) return bad(r, "has nothing to add to");
    uint32_t to = r->stack.at[first - 1];
    size_t count = r->stack.count - first;
    BB_TRY(expect(r, to, kind,
                  kind == BB_PICKLE_LIST ? "adds items to a value that is not a list"
                                         : "sets items of a value that is not a dict"));
    if (kind == BB_PICKLE_DICT && count % 2) return bad(r, "sets an odd number of keys and values");
    BB_TRY(append(r, to, r->stack.at + first, count));
    r->stack.count = first;
    return BB_OK;
}

static bb_status memo_put(reader *r, uint64_t key) {
    if (r->stack.count <= stack_floor(r)) return bad(r, "stores a value from an empty stack in the memo");
    if (key > r->size) return bad(r, "a memo key larger than the number of operations");
    while (r->memo.count <= key) BB_TRY(push_index(r, &r->memo, 0));
    r->memo.at[key] = r->stack.at[r->stack.count - 1] + 1;
    return BB_OK;
}

static bb_status memo_get(reader *r, uint64_t key) {
    if (key >= r->memo.count || !r->memo.at[key]) return bad(r, "reads a memo entry that was not set");
    return push_index(r, &r->stack, r->memo.at[key] - 1);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static bb_status take(reader *r, uint64_t n, const uint8_t **out) {
    if (n > r->size - r->at) return bad(r, "ends in the middle of a value");
    *out = r->data + r->at;
    r->at += (size_t)n;
    return BB_OK;
}

static bb_status read_uint(reader *r, int bytes, uint64_t *out) {
    const uint8_t *p = NULL;
    BB_TRY(take(r, (uint64_t)bytes, &p));
    *out = 0;
    for (int i = 0; i < bytes; i++) *out |= (uint64_t)p[i] << 8 * i;
    return BB_OK;
}

static bb_status push_int(reader *r, int64_t value) {
    return push(r, (bb_pickle_value){.kind = BB_PICKLE_INT, .as.integer = value});
}

static bb_status push_text(reader *r, uint64_t length) {
    const uint8_t *p = NULL;
    BB_TRY(take(r, length, &p));
    if (memchr(p, 0, (size_t)length)) return bad(r, "a string with a zero byte");
    char *text = strndup((const char *)p, (size_t)length);
    if (!text) return no_memory(r);
    bb_status status = push(r, (bb_pickle_value){.kind = BB_PICKLE_STRING, .as.text = text});
    if (status != BB_OK) free(text);
    return status; /* NOLINT(clang-analyzer-unix.Malloc): the pickle owns it */
}

static bb_status push_long(reader *r, uint64_t bytes) {
    const uint8_t *p = NULL;
    uint64_t value = 0;
    if (bytes > sizeof value) return bad(r, "an integer of more than 64 bits");
    BB_TRY(take(r, bytes, &p));
    for (uint64_t i = 0; i < bytes; i++) value |= (uint64_t)p[i] << 8 * i;
    if (bytes && bytes < sizeof value && p[bytes - 1] & 0x80) value |= UINT64_MAX << 8 * bytes;
    return push_int(r, (int64_t)value);
}

static bb_status push_double(reader *r) {
    const uint8_t *p = NULL;
    uint64_t bits = 0;
    double value;
    BB_TRY(take(r, sizeof bits, &p));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* pickled big-endian */
    memcpy(&value, &bits, sizeof value);
    return push(r, (bb_pickle_value){.kind = BB_PICKLE_FLOAT, .as.real = value});
}

/* Names come from the file: only a printable, short form goes into messages. */
static bb_status refuse_class(const reader *r, const char *module, const char *name) {
    char shown[128];
    size_t n = 0;
    for (const char *part = module; part; part = part == module ? name : NULL) {
        if (n && n + 1 < sizeof shown) shown[n++] = '.';
        for (const char *c = part; *c && n + 1 < sizeof shown; c++) shown[n++] = *c >= ' ' && *c < 127 ? *c : '?';
    }
    shown[n] = 0;
    return bb_fail(r->err, BB_ERR_UNSUPPORTED,
                   "%s: pickle, byte %zu: refused %s: only tensors, dicts, lists, strings and numbers are read, and nothing in "
                   "the file is executed; save the model's state_dict() alone, with plain values beside it",
                   r->where, r->op_at, shown);
}

static bb_status push_class(reader *r, const char *module, const char *name) {
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].module, module) == 0 && strcmp(classes[i].name, name) == 0)
            return push(r, (bb_pickle_value){.kind = BB_PICKLE_CLASS, .as.integer = (int64_t)i});
    return refuse_class(r, module, name);
}

/* Copies a line of text to `out`. */
static bb_status read_line(reader *r, char *out, size_t size) {
    const uint8_t *end = r->at < r->size ? memchr(r->data + r->at, '\n', r->size - r->at) : NULL;
    size_t length = end ? (size_t)(end - (r->data + r->at)) : 0;
    if (!end) return bad(r, "a name without a line end");
    if (length >= size) return bad(r, "a name that is too long");
    memcpy(out, r->data + r->at, length);
    out[length] = 0;
    r->at += length + 1;
    return BB_OK;
}

static bb_status read_global(reader *r) {
    char module[128], name[128];
    BB_TRY(read_line(r, module, sizeof module));
    BB_TRY(read_line(r, name, sizeof name));
    return push_class(r, module, name);
}

static bb_status read_stack_global(reader *r) {
    uint32_t name = 0, module = 0;
    BB_TRY(pop(r, &name));
    BB_TRY(pop(r, &module));
    BB_TRY(expect(r, name, BB_PICKLE_STRING, "a class name that is not a string"));
    BB_TRY(expect(r, module, BB_PICKLE_STRING, "a module name that is not a string"));
    return push_class(r, value_at(r, module)->as.text, value_at(r, name)->as.text);
}

/* ("storage", class, key, location, elements) */
static bb_status read_persistent_id(reader *r) {
    uint32_t id = 0;
    BB_TRY(pop(r, &id));
    const bb_pickle_value *v = value_at(r, id);
    if (v->kind != BB_PICKLE_LIST || v->as.items.count != 5) return bad(r, "a persistent id that is not a storage");
    const uint32_t *item = v->as.items.values;
    const bb_pickle_value *class_value = value_at(r, item[1]), *count = value_at(r, item[4]);
    if (class_value->kind != BB_PICKLE_CLASS || class_value->as.integer < FIRST_STORAGE ||
        value_at(r, item[2])->kind != BB_PICKLE_STRING || count->kind != BB_PICKLE_INT || count->as.integer < 0)
        return bad(r, "a persistent id that is not a storage");
    bb_pickle_value storage = {.kind = BB_PICKLE_STORAGE};
    storage.as.storage.key = item[2];
    storage.as.storage.dtype = classes[class_value->as.integer].dtype;
    storage.as.storage.count = count->as.integer;
    return push(r, storage);
}

static bb_status read_dims(const reader *r, uint32_t from, int64_t *out, int *rank) {
    const bb_pickle_value *v = value_at(r, from);
    if (v->kind != BB_PICKLE_LIST || v->as.items.count > BB_PICKLE_MAX_RANK)
        return bad(r, "a tensor whose shape is not a tuple of at most four sizes");
    for (uint32_t i = 0; i < v->as.items.count; i++) {
        const bb_pickle_value *n = value_at(r, v->as.items.values[i]);
        if (n->kind != BB_PICKLE_INT || n->as.integer < 0) return bad(r, "a tensor with an invalid size or stride");
        out[i] = n->as.integer;
    }
    *rank = (int)v->as.items.count;
    return BB_OK;
}

/* Arguments: storage, offset, shape, strides, … Every element must lie inside the storage, and there may not be more elements
 * than it has. */
static bb_status rebuild_tensor(reader *r, const bb_pickle_value *args) {
    const uint32_t *item = args->as.items.values;
    bb_pickle_tensor t = {.rank = 0};
    int strides = 0;
    if (args->as.items.count < 4 || value_at(r, item[0])->kind != BB_PICKLE_STORAGE ||
        value_at(r, item[1])->kind != BB_PICKLE_INT || value_at(r, item[1])->as.integer < 0)
        return bad(r, "a tensor without a storage and an offset");
    t.storage = item[0];
    t.offset = value_at(r, item[1])->as.integer;
    BB_TRY(read_dims(r, item[2], t.shape, &t.rank));
    BB_TRY(read_dims(r, item[3], t.stride, &strides));
    if (strides != t.rank) return bad(r, "a tensor whose numbers of strides and sizes differ");
    int64_t available = value_at(r, t.storage)->as.storage.count, elements = 1, last = t.offset;
    for (int i = 0; i < t.rank; i++) {
        int64_t reach;
        if (__builtin_mul_overflow(elements, t.shape[i], &elements)) return bad(r, "a tensor whose shape overflows");
        if (t.shape[i] > 0 &&
            (__builtin_mul_overflow(t.shape[i] - 1, t.stride[i], &reach) || __builtin_add_overflow(last, reach, &last)))
            return bad(r, "a tensor whose strides overflow");
    }
    if (elements > 0 && last >= available) return bad(r, "a tensor that extends beyond its storage");
    if (elements > available) return bad(r, "a tensor with more elements than its storage");
    bb_pickle_tensor *tensor = malloc(sizeof *tensor);
    if (!tensor) return no_memory(r);
    *tensor = t;
    bb_status status = push(r, (bb_pickle_value){.kind = BB_PICKLE_TENSOR, .as.tensor = tensor});
    if (status != BB_OK) free(tensor);
    return status; /* NOLINT(clang-analyzer-unix.Malloc): the pickle owns it */
}

/* Evaluates a call without making it: the results of the four permitted functions are known. */
static bb_status reduce(reader *r) {
    uint32_t args = 0, function = 0;
    BB_TRY(pop(r, &args));
    BB_TRY(pop(r, &function));
    BB_TRY(expect(r, function, BB_PICKLE_CLASS, "calls a value that is not a function"));
    BB_TRY(expect(r, args, BB_PICKLE_LIST, "calls a function without a tuple of arguments"));
    bb_pickle_value a = *value_at(r, args);
    switch (value_at(r, function)->as.integer) {
    case ORDERED_DICT:
        if (a.as.items.count != 0) return bad(r, "an OrderedDict constructed with arguments");
        return push(r, (bb_pickle_value){.kind = BB_PICKLE_DICT});
    case SIZE:
        if (a.as.items.count != 1) return bad(r, "a Size constructed from other than one tuple");
        BB_TRY(expect(r, a.as.items.values[0], BB_PICKLE_LIST, "a Size constructed from a value that is not a tuple"));
        return push_index(r, &r->stack, a.as.items.values[0]);
    case REBUILD_TENSOR: return rebuild_tensor(r, &a);
    case REBUILD_PARAMETER:
        if (a.as.items.count < 1) return bad(r, "a parameter without a tensor");
        BB_TRY(expect(r, a.as.items.values[0], BB_PICKLE_TENSOR, "a parameter that is not a tensor"));
        return push_index(r, &r->stack, a.as.items.values[0]);
    default: return bad(r, "calls a type that is not called in files of torch.save");
    }
}

/* Evaluates the creation of an object: only GaLore's projectors, which the optimizer's state contains, become empty dicts. */
static bb_status new_object(reader *r) {
    uint32_t args = 0, type = 0;
    BB_TRY(pop(r, &args));
    BB_TRY(pop(r, &type));
    BB_TRY(expect(r, type, BB_PICKLE_CLASS, "creates an object of a value that is not a type"));
    BB_TRY(expect(r, args, BB_PICKLE_LIST, "creates an object without a tuple of arguments"));
    if (value_at(r, type)->as.integer != GALORE_PROJECTOR || value_at(r, args)->as.items.count)
        return bad(r, "creates an object that files of torch.save do not have");
    return push(r, (bb_pickle_value){.kind = BB_PICKLE_DICT});
}

/* Ignores the state of an OrderedDict (a state_dict's _metadata) or of a projector. */
static bb_status build(reader *r) {
    uint32_t state = 0, object = 0;
    BB_TRY(pop(r, &state));
    BB_TRY(pop(r, &object));
    BB_TRY(expect(r, object, BB_PICKLE_DICT, "sets the state of a value that is not a dict"));
    return push_index(r, &r->stack, object);
}

static bb_status read_counted(reader *r, int length_bytes, bb_status (*push_value)(reader *r, uint64_t n)) {
    uint64_t n = 0;
    BB_TRY(read_uint(r, length_bytes, &n));
    return push_value(r, n);
}

static bb_status read_memo(reader *r, int key_bytes, bb_status (*use)(reader *r, uint64_t key)) {
    uint64_t key = 0;
    BB_TRY(read_uint(r, key_bytes, &key));
    return use(r, key);
}

static bb_status tuple_of(reader *r, size_t count) {
    if (r->stack.count - stack_floor(r) < count) return bad(r, "a tuple of more values than the stack has");
    return collect(r, BB_PICKLE_LIST, r->stack.count - count);
}

static bb_status marked(reader *r, bb_pickle_kind kind) {
    size_t first = 0;
    BB_TRY(pop_mark(r, &first));
    return collect(r, kind, first);
}

static bb_status add_one(reader *r, bb_pickle_kind kind) {
    uint32_t value[2] = {0}, to = 0;
    size_t n = kind == BB_PICKLE_DICT ? 2 : 1;
    BB_TRY(pop(r, &value[n - 1]));
    if (n == 2) BB_TRY(pop(r, &value[0]));
    BB_TRY(pop(r, &to));
    BB_TRY(expect(r, to, kind, "adds an item to a value that is not a list or dict"));
    BB_TRY(append(r, to, value, n));
    return push_index(r, &r->stack, to);
}

static bb_status read_int_of(reader *r, int bytes, bool is_signed) {
    uint64_t n = 0;
    BB_TRY(read_uint(r, bytes, &n));
    return push_int(r, is_signed ? (int64_t)(int32_t)(uint32_t)n : (int64_t)n);
}

static bb_status read_frame(reader *r) {
    uint64_t length = 0;
    BB_TRY(read_uint(r, 8, &length));
    return length <= r->size - r->at ? BB_OK : bad(r, "a frame longer than the file");
}

static bb_status read_protocol(reader *r) {
    uint64_t version = 0;
    BB_TRY(read_uint(r, 1, &version));
    return version <= MAX_PROTOCOL ? BB_OK : bad(r, "an unknown protocol");
}

static bb_status step(reader *r, uint8_t op) {
    char message[64];
    switch (op) {
    case 0x80: return read_protocol(r);
    case 0x95: return read_frame(r);
    case 'N': return push(r, (bb_pickle_value){.kind = BB_PICKLE_NONE});
    case 0x88:
    case 0x89: return push(r, (bb_pickle_value){.kind = BB_PICKLE_BOOL, .as.integer = op == 0x88});
    case 'J': return read_int_of(r, 4, true);
    case 'K': return read_int_of(r, 1, false);
    case 'M': return read_int_of(r, 2, false);
    case 0x8a: return read_counted(r, 1, push_long);
    case 'G': return push_double(r);
    case 'X': return read_counted(r, 4, push_text);
    case 0x8c: return read_counted(r, 1, push_text);
    case 0x8d: return read_counted(r, 8, push_text);
    case '(': return push_index(r, &r->marks, (uint32_t)r->stack.count);
    case ')':
    case ']': return push(r, (bb_pickle_value){.kind = BB_PICKLE_LIST});
    case '}': return push(r, (bb_pickle_value){.kind = BB_PICKLE_DICT});
    case 't':
    case 'l': return marked(r, BB_PICKLE_LIST);
    case 'd': return marked(r, BB_PICKLE_DICT);
    case 0x85: return tuple_of(r, 1);
    case 0x86: return tuple_of(r, 2);
    case 0x87: return tuple_of(r, 3);
    case 'a': return add_one(r, BB_PICKLE_LIST);
    case 'e': return add_marked(r, BB_PICKLE_LIST);
    case 's': return add_one(r, BB_PICKLE_DICT);
    case 'u': return add_marked(r, BB_PICKLE_DICT);
    case 'q': return read_memo(r, 1, memo_put);
    case 'r': return read_memo(r, 4, memo_put);
    case 0x94: return memo_put(r, r->memo.count);
    case 'h': return read_memo(r, 1, memo_get);
    case 'j': return read_memo(r, 4, memo_get);
    case 'c': return read_global(r);
    case 0x93: return read_stack_global(r);
    case 'R': return reduce(r);
    case 0x81: return new_object(r);
    case 'b': return build(r);
    case 'Q': return read_persistent_id(r);
    default: (void)snprintf(message, sizeof message, "unsupported operation 0x%02x", op); return bad(r, message);
    }
}

static bb_status run(reader *r) {
    for (;;) {
        r->op_at = r->at;
        if (r->at >= r->size) return bad(r, "has no end");
        uint8_t op = r->data[r->at++];
        if (op == '.') break;
        BB_TRY(step(r, op));
    }
    return pop(r, &r->pickle->root);
}

bb_status bb_pickle_read(const uint8_t *data, size_t size, const char *where, bb_pickle *out, bb_error *err) {
    *out = (bb_pickle){0};
    reader r = {.data = data, .size = size, .where = where, .pickle = out, .err = err};
    bb_status status = run(&r);
    free(r.stack.at);
    free(r.marks.at);
    free(r.memo.at);
    if (status != BB_OK) bb_pickle_free(out);
    return status;
}

void bb_pickle_free(bb_pickle *pickle) {
    for (uint32_t i = 0; i < pickle->count; i++) {
        bb_pickle_value *v = &pickle->values[i];
        if (v->kind == BB_PICKLE_STRING) free(v->as.text);
        if (v->kind == BB_PICKLE_LIST || v->kind == BB_PICKLE_DICT) free(v->as.items.values);
        if (v->kind == BB_PICKLE_TENSOR) free(v->as.tensor);
    }
    free(pickle->values);
    *pickle = (bb_pickle){0};
}
