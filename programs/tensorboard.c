// SPDX-License-Identifier: MIT
#include "tensorboard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct bb_tensorboard {
    FILE *file;
    bool failed; /* out of memory for a record */
};

/* ---- protocol buffers: a field is a key, number * 8 + type, and a value ------------------------------------------------- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct message {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} message;

static void put(message *m, const void *data, size_t size) {
    if (m->size + size > m->capacity) {
        size_t capacity = 2 * (m->size + size) + 64;
        uint8_t *grown = m->failed ? NULL : realloc(m->data, capacity);
        if (!grown) {
            m->failed = true;
            return;
        }
        m->data = grown;
        m->capacity = capacity;
    }
    if (size) memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_number(message *m, uint64_t value) {
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    put(m, bytes, n);
}

static void put_little_endian(message *m, uint64_t value, int size) {
    uint8_t bytes[8];
    for (int i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> 8 * i);
    put(m, bytes, (size_t)size);
}

static void add_varint(message *m, int field, uint64_t value) {
    put_number(m, (uint64_t)field * 8 + VARINT);
    put_number(m, value);
}

static void put_double(message *m, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_little_endian(m, bits, 8);
}

static void add_double(message *m, int field, double value) {
    put_number(m, (uint64_t)field * 8 + FIXED64);
    put_double(m, value);
}

static void add_float(message *m, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_number(m, (uint64_t)field * 8 + FIXED32);
    put_little_endian(m, bits, 4);
}

static void add_bytes(message *m, int field, const void *data, size_t size) {
    put_number(m, (uint64_t)field * 8 + BYTES);
    put_number(m, size);
    put(m, data, size);
}

static void add_text(message *m, int field, const char *text) { add_bytes(m, field, text, strlen(text)); }

/* Adds a nested message; frees `part`. */
static void add_message(message *m, int field, message *part) {
    add_bytes(m, field, part->data, part->size);
    m->failed |= part->failed;
    free(part->data);
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

/* CRC-32C (Castagnoli), RFC 3720 appendix B.4. */
static uint32_t masked_crc(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82F63B78 & (0 - (crc & 1)));
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xA282EAD8;
}

/* Writes an event, and frees it. */
static void write_record(bb_tensorboard *board, message *event) {
    message frame = {0};
    put_little_endian(&frame, event->size, 8);
    if (!frame.failed) put_little_endian(&frame, masked_crc(frame.data, 8), 4);
    put(&frame, event->data, event->size);
    put_little_endian(&frame, masked_crc(event->data, event->size), 4);
    board->failed |= frame.failed || event->failed;
    if (!board->failed) fwrite(frame.data, 1, frame.size, board->file);
    free(frame.data);
    free(event->data);
}

/* Event: wall_time = 1, step = 2. */
static message event_of(int64_t step) {
    struct timespec now;
    message event = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    add_double(&event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    if (step) add_varint(&event, 2, (uint64_t)step);
    return event;
}

/* Event.summary = 5, Summary.value = 1; frees `value`. */
static void write_value(bb_tensorboard *board, int64_t step, message *value) {
    message event = event_of(step), summary = {0};
    add_message(&summary, 1, value);
    add_message(&event, 5, &summary);
    write_record(board, &event);
}

/* Value.metadata = 9; SummaryMetadata: plugin_data = 1, data_class = 4; PluginData: plugin_name = 1, content = 2. */
static void add_metadata(message *value, const char *plugin, const message *content, int data_class) {
    message data = {0}, metadata = {0};
    add_text(&data, 1, plugin);
    if (content) add_bytes(&data, 2, content->data, content->size);
    add_message(&metadata, 1, &data);
    if (data_class) add_varint(&metadata, 4, (uint64_t)data_class);
    add_message(value, 9, &metadata);
}

bb_tensorboard *bb_tensorboard_open(const char *dir, int64_t first_step) {
    char host[128] = "host", path[4096];
    bb_tensorboard *board = calloc(1, sizeof *board);
    if (!board) return NULL;
    (void)gethostname(host, sizeof host - 1);
    snprintf(path, sizeof path, "%s/events.out.tfevents.%010lld.%s.%d", dir, (long long)time(NULL), host, (int)getpid());
    board->file = fopen(path, "ab");
    if (!board->file) {
        free(board);
        return NULL;
    }
    message event = event_of(0);
    add_text(&event, 3, "brain.Event:2"); /* Event.file_version */
    write_record(board, &event);
    if (first_step > 0) { /* Event.session_log = 7; SessionLog.status = 1, START = 1 */
        message log = {0};
        event = event_of(first_step + 1);
        add_varint(&log, 1, 1);
        add_message(&event, 7, &log);
        write_record(board, &event);
    }
    return board;
}

/* ---- values: Value.tag = 1 ---------------------------------------------------------------------------------------------- */

void bb_tensorboard_scalar(bb_tensorboard *board, int64_t step, const char *tag, double value) {
    message m = {0};
    add_text(&m, 1, tag);
    add_float(&m, 2, (float)value); /* simple_value */
    write_value(board, step, &m);
}

/* Value.tensor = 8; TensorProto: dtype = 1 (DT_STRING is 7), tensor_shape = 2, string_val = 8; a shape without a dim is a
 * scalar's. data_class 2 is a tensor. */
void bb_tensorboard_text(bb_tensorboard *board, int64_t step, const char *tag, const char *text) {
    message m = {0}, tensor = {0}, shape = {0};
    add_text(&m, 1, tag);
    add_varint(&tensor, 1, 7);
    add_message(&tensor, 2, &shape);
    add_text(&tensor, 8, text);
    add_message(&m, 8, &tensor);
    add_metadata(&m, "text", NULL, 2);
    write_value(board, step, &m);
}

/* Value.histo = 5; HistogramProto: min = 1, max = 2, num = 3, sum = 4, sum_squares = 5, bucket_limit = 6, bucket = 7, the last
 * two packed. */
void bb_tensorboard_histogram(bb_tensorboard *board, int64_t step, const char *tag, const float *values, int64_t n) {
    enum { BUCKETS = 64 };
    double min = (double)values[0], max = min, sum = 0, squares = 0, count[BUCKETS] = {0};
    for (int64_t i = 0; i < n; i++) {
        double v = (double)values[i];
        min = fmin(min, v);
        max = fmax(max, v);
        sum += v;
        squares += v * v;
    }
    double width = max > min ? (max - min) / BUCKETS : 1;
    for (int64_t i = 0; i < n; i++) {
        int bucket = (int)(((double)values[i] - min) / width);
        count[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    }
    message m = {0}, histogram = {0}, limits = {0}, counts = {0};
    for (int i = 0; i < BUCKETS; i++) {
        put_double(&limits, i == BUCKETS - 1 && max > min ? max : min + width * (i + 1));
        put_double(&counts, count[i]);
    }
    add_text(&m, 1, tag);
    add_double(&histogram, 1, min);
    add_double(&histogram, 2, max);
    add_double(&histogram, 3, (double)n);
    add_double(&histogram, 4, sum);
    add_double(&histogram, 5, squares);
    add_message(&histogram, 6, &limits);
    add_message(&histogram, 7, &counts);
    add_message(&m, 5, &histogram);
    write_value(board, step, &m);
}

/* HParamsPluginData: version = 1, session_start_info = 3; SessionStartInfo: hparams = 1, a map from text (1) to Value (2),
 * start_time_secs = 5; Value: number = 2, string = 3, bool = 4. */
void bb_tensorboard_hparams(bb_tensorboard *board, const json_t *options) {
    message m = {0}, content = {0}, info = {0};
    const char *key;
    json_t *option;
    json_object_foreach((json_t *)options, key, option) {
        message entry = {0}, value = {0};
        if (json_is_number(option))
            add_double(&value, 2, json_number_value(option));
        else if (json_is_string(option))
            add_text(&value, 3, json_string_value(option));
        else if (json_is_boolean(option))
            add_varint(&value, 4, json_is_true(option));
        else
            continue;
        add_text(&entry, 1, key);
        add_message(&entry, 2, &value);
        add_message(&info, 1, &entry);
    }
    add_double(&info, 5, (double)time(NULL));
    add_varint(&content, 1, 0);
    add_message(&content, 3, &info);
    add_text(&m, 1, "_hparams_/session_start_info");
    add_metadata(&m, "hparams", &content, 0);
    m.failed |= content.failed;
    free(content.data);
    write_value(board, 0, &m);
}

bool bb_tensorboard_flush(bb_tensorboard *board) { return fflush(board->file) == 0 && !ferror(board->file) && !board->failed; }

bool bb_tensorboard_close(bb_tensorboard *board) {
    bool good = bb_tensorboard_flush(board);
    good = fclose(board->file) == 0 && good;
    free(board);
    return good;
}
