// SPDX-License-Identifier: MIT
/* JSON output: as JSON text, and as tables for people. */
#include "json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bitbyte.h"
#include "utf8.h"

/* Returns the smallest number of significant digits, at least `digits`, that represents every real in `json` exactly. */
static int exact_digits(json_t *json, int digits) {
    if (json_is_object(json)) {
        const char *key;
        json_t *item;
        json_object_foreach(json, key, item) digits = exact_digits(item, digits);
    } else if (json_is_array(json)) {
        json_t *item;
        size_t index;
        json_array_foreach(json, index, item) digits = exact_digits(item, digits);
    } else if (json_is_real(json)) {
        char text[64];
        for (; digits < 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, json_real_value(json));
            if (strtod(text, NULL) == json_real_value(json)) break;
        }
    }
    return digits;
}

char *bb_json_dump(json_t *json, size_t flags) {
    return json_dumps(json, flags | JSON_REAL_PRECISION((size_t)exact_digits(json, 6)));
}

json_t *bb_json_path_string(const char *path) {
    char *text = bb_path_text(path);
    json_t *string = text ? json_string(text) : NULL;
    bb_string_free(text);
    return string;
}

bool bb_json_write(json_t *json, FILE *out) {
    char *text = json ? bb_json_dump(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text) return false;
    fprintf(out, "%s\n", text);
    fflush(out);
    free(text);
    return true;
}

void bb_json_add_bytes(json_t *object, const uint8_t *bytes, size_t length) {
    json_t *text = json_stringn((const char *)bytes, length); /* NULL if it is not UTF-8 */
    if (text) {
        json_object_set_new(object, "text", text);
        return;
    }
    size_t replacement = strlen(BB_UTF8_REPLACEMENT), size = 0;
    char *shown = malloc(replacement * length + 1), *hex = malloc(2 * length + 1);
    bb_utf8 utf8 = {.have = 0};
    for (size_t i = 0; shown && hex && i <= length; i++) {
        bb_utf8_result r = {.invalid = i == length ? bb_utf8_end(&utf8) : 0};
        if (i < length) {
            r = bb_utf8_byte(&utf8, bytes[i]);
            snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
        }
        for (int n = 0; n < r.invalid; n++)
            for (size_t k = 0; k < replacement; k++) shown[size++] = BB_UTF8_REPLACEMENT[k];
        memcpy(shown + size, r.character, (size_t)r.size);
        size += (size_t)r.size;
    }
    json_object_set_new(object, "text", shown && hex ? json_stringn(shown, size) : NULL);
    json_object_set_new(object, "hex", shown && hex ? json_stringn(hex, 2 * length) : NULL);
    free(shown);
    free(hex);
}

enum { CELL = 160 };

/* Escapes as in JSON a text that would not fit on its line. */
static void string_text(const json_t *value, char *out) {
    const char *text = json_string_value(value);
    char *quoted = strpbrk(text, "\n\r\t\033") ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    snprintf(out, CELL, "%s", quoted ? quoted : text);
    free(quoted);
}

static void scalar_text(const json_t *value, char *out) {
    switch (json_typeof(value)) {
    case JSON_STRING: string_text(value, out); break;
    case JSON_INTEGER: snprintf(out, CELL, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: {
        double real = json_real_value(value);
        snprintf(out, CELL, fabs(real) >= 1000 && fabs(real) < 1e15 ? "%.0f" : "%.4g", real);
        break;
    }
    case JSON_TRUE: snprintf(out, CELL, "yes"); break;
    case JSON_FALSE: snprintf(out, CELL, "no"); break;
    case JSON_NULL: snprintf(out, CELL, "-"); break;
    default: {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        snprintf(out, CELL, "%s", text ? text : "?");
        free(text);
    }
    }
}

/* Prints a table with a column for every key of any row, in order of appearance. */
static void show_table(json_t *rows, int indent, FILE *out) {
    enum { COLUMNS = 32 };
    struct {
        const char *key;
        int width;
        bool left;
    } columns[COLUMNS];
    int count = 0;
    json_t *row, *value;
    const char *key;
    char text[CELL];
    size_t index;
    json_array_foreach(rows, index, row) {
        json_object_foreach(row, key, value) {
            int c = 0;
            while (c < count && strcmp(columns[c].key, key) != 0) c++;
            if (c == COLUMNS) continue;
            if (c == count) {
                columns[count].key = key;
                columns[count].width = (int)strlen(key);
                columns[count++].left = json_is_string(value);
            }
            scalar_text(value, text);
            if ((int)strlen(text) > columns[c].width) columns[c].width = (int)strlen(text);
        }
    }
    for (size_t line = 0; line <= json_array_size(rows); line++) {
        row = line ? json_array_get(rows, line - 1) : NULL;
        fprintf(out, "%*s", indent, "");
        for (int c = 0; c < count; c++) {
            value = json_object_get(row, columns[c].key);
            if (value) scalar_text(value, text);
            const char *cell = !row ? columns[c].key : value ? text : "";
            fprintf(out, columns[c].left ? "%-*s" : "%*s", columns[c].width, cell);
            fputs(c + 1 < count ? "  " : "\n", out);
        }
    }
}

static void show_object(json_t *object, int indent, FILE *out) {
    const char *key;
    json_t *value;
    int width = 0;
    json_object_foreach(object, key, value) if ((int)strlen(key) > width) width = (int)strlen(key);
    json_object_foreach(object, key, value) {
        if (json_is_object(value)) {
            fprintf(out, "%*s%s\n", indent, "", key);
            show_object(value, indent + 2, out);
        } else if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
            fprintf(out, "%*s%s\n", indent, "", key);
            show_table(value, indent + 2, out);
        } else {
            char text[CELL];
            scalar_text(value, text);
            fprintf(out, "%*s%-*s  %s\n", indent, "", width, key, text);
        }
    }
}

void bb_json_show(json_t *json, FILE *out) {
    if (json_is_object(json))
        show_object(json, 0, out);
    else if (json_is_array(json) && json_is_object(json_array_get(json, 0)))
        show_table(json, 0, out);
}
