// SPDX-License-Identifier: MIT
#include "training/checkpoint_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "training/old_moments.h"

enum { MAX_MOMENT_TENSORS = 4 /* maximum number of moment tensors per parameter */ };

static void add_tensor(bb_checkpoint_tensor *list, int *count, const char *prefix, const bb_param *p, int param,
                       bb_checkpoint_field field) {
    bool codes = field == BB_FIELD_M8 || field == BB_FIELD_V8;
    bool absmax = field == BB_FIELD_M8_ABSMAX || field == BB_FIELD_V8_ABSMAX, rows = field == BB_FIELD_ROW_SUMS;
    bb_checkpoint_tensor *t = &list[(*count)++];
    snprintf(t->name, sizeof t->name, "%s%s", prefix, p->name);
    t->param = param;
    t->field = field;
    t->tensor = (bb_file_tensor){.dtype = codes                        ? BB_FILE_U8
                                          : field == BB_FIELD_MOMENTUM ? BB_FILE_BF16
                                                                       : BB_FILE_F32,
                                 .rank = absmax || rows ? 1 : p->rank};
    int64_t blocks = bb_optimizer_blocks(p->count);
    memcpy(t->tensor.shape, absmax ? &blocks : p->shape, (size_t)t->tensor.rank * sizeof *p->shape);
    t->tensor.bytes = (uint64_t)(absmax ? blocks : rows ? p->shape[0] : p->count) * bb_file_dtype_bytes(t->tensor.dtype);
}

bb_status bb_checkpoint_tensors_list(const bb_model *model, const bb_optimizer *optimizer, const bb_tensor_source *source,
                                     bb_checkpoint_tensor **out, int *count, bb_error *err) {
    const bb_param_table *table = &model->table;
    bb_checkpoint_tensor *list = calloc((size_t)table->count * (1 + MAX_MOMENT_TENSORS), sizeof *list);
    if (!list) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %d tensors", table->count);
    *count = 0;
    for (int i = 0; i < table->count; i++) add_tensor(list, count, "", &table->entries[i], i, BB_FIELD_VALUES);
    for (int i = 0; optimizer && i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        bb_moments form = bb_optimizer_moments(optimizer->options.kind, p);
        if (form == BB_MOMENTS_ROWS) {
            add_tensor(list, count, "opt.row_sums.", p, i, BB_FIELD_ROW_SUMS);
        } else if (form == BB_MOMENTUM_BF16) {
            add_tensor(list, count, "opt.momentum.", p, i, BB_FIELD_MOMENTUM);
        } else if (form == BB_MOMENTS_8BIT || (source && bb_old_moments_found(source, optimizer, p))) {
            add_tensor(list, count, "opt.m8.", p, i, BB_FIELD_M8);
            add_tensor(list, count, "opt.v8.", p, i, BB_FIELD_V8);
            add_tensor(list, count, "opt.m8_absmax.", p, i, BB_FIELD_M8_ABSMAX);
            add_tensor(list, count, "opt.v8_absmax.", p, i, BB_FIELD_V8_ABSMAX);
        } else {
            add_tensor(list, count, "opt.m.", p, i, BB_FIELD_M);
            add_tensor(list, count, "opt.v.", p, i, BB_FIELD_V);
        }
    }
    *out = list;
    return BB_OK;
}

bb_checkpoint_memory bb_checkpoint_memory_of(const bb_model *model, const bb_optimizer *optimizer) {
    return (bb_checkpoint_memory){.table = &model->table,
                                  .params = model->params,
                                  .shards = optimizer ? &optimizer->shards : NULL,
                                  .slots = optimizer ? optimizer->slots : NULL};
}

int bb_checkpoint_part_count(const bb_checkpoint_memory *memory, const bb_checkpoint_tensor *t) {
    if (t->field == BB_FIELD_VALUES) return 1;
    return memory->shards->first_piece[t->param + 1] - memory->shards->first_piece[t->param];
}

bb_checkpoint_part bb_checkpoint_part_at(const bb_checkpoint_memory *memory, const bb_checkpoint_tensor *t, int index) {
    if (t->field == BB_FIELD_VALUES)
        return (bb_checkpoint_part){.data = memory->params + memory->table->entries[t->param].offset,
                                    .bytes = (size_t)t->tensor.bytes};
    int i = memory->shards->first_piece[t->param] + index;
    const bb_piece *p = &memory->shards->pieces[i];
    const bb_optimizer_slot *s = &memory->slots[i];
    size_t n = (size_t)p->count, blocks = (size_t)bb_optimizer_blocks(p->count);
    switch (t->field) {
    case BB_FIELD_M8: return (bb_checkpoint_part){s->q.m, n, p->rank};
    case BB_FIELD_V8: return (bb_checkpoint_part){s->q.v, n, p->rank};
    case BB_FIELD_M8_ABSMAX: return (bb_checkpoint_part){s->q.m_absmax, blocks * sizeof(float), p->rank};
    case BB_FIELD_V8_ABSMAX: return (bb_checkpoint_part){s->q.v_absmax, blocks * sizeof(float), p->rank};
    case BB_FIELD_ROW_SUMS:
        return (bb_checkpoint_part){s->row_sums, n / (size_t)memory->table->entries[t->param].shape[1] * sizeof(float),
                                    p->rank};
    case BB_FIELD_MOMENTUM: return (bb_checkpoint_part){s->momentum, n * sizeof *s->momentum, p->rank};
    case BB_FIELD_M: return (bb_checkpoint_part){s->m, n * sizeof(float), p->rank};
    default: return (bb_checkpoint_part){s->v, n * sizeof(float), p->rank};
    }
}

bb_status bb_checkpoint_copy_in(bb_device *device, const bb_checkpoint_memory *to, const bb_checkpoint_tensor *tensor,
                                const bb_checkpoint_bytes *bytes, bb_error *err) {
    uint64_t part_begin = 0, at = bytes->at, past = at + bytes->size;
    for (int i = 0, parts = bb_checkpoint_part_count(to, tensor); i < parts && part_begin < past; i++) {
        bb_checkpoint_part part = bb_checkpoint_part_at(to, tensor, i);
        uint64_t part_end = part_begin + part.bytes;
        uint64_t begin = part_begin > at ? part_begin : at, end = part_end < past ? part_end : past;
        if (part.data && begin < end)
            device->ops->copy_in(device, (uint8_t *)part.data + (begin - part_begin), bytes->data + (begin - at),
                                 (size_t)(end - begin));
        part_begin = part_end;
    }
    return device->ops->sync(device, err);
}
