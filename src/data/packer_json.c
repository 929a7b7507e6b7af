// SPDX-License-Identifier: MIT
/* Extracts texts from JSON, as UTF-8 with escapes resolved. */
#include "data/packer_json.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static bb_status search(bb_pack_extractor *x, const json_t *value, bool under_key, int64_t *found, bb_error *err);

static bb_status search_object(bb_pack_extractor *x, const json_t *object, int64_t *found, bb_error *err) {
    int64_t before = *found;
    for (int i = 0; i < x->key_count && *found == before; i++) {
        const json_t *value = json_object_get(object, x->keys[i]);
        if (value) BB_TRY(search(x, value, true, found, err));
    }
    if (*found > before) return BB_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) BB_TRY(search(x, value, false, found, err));
    return BB_OK;
}

/* The parser's nesting limit bounds the recursion. An empty string does not count: the next key may have text. */
static bb_status search(bb_pack_extractor *x, const json_t *value, bool under_key, int64_t *found, bb_error *err) {
    if (json_is_object(value)) return search_object(x, value, found, err);
    if (json_is_array(value)) {
        size_t i;
        json_t *item;
        json_array_foreach(value, i, item) BB_TRY(search(x, item, under_key, found, err));
    } else if (under_key && json_string_length(value) > 0) {
        ++*found;
        return x->emit(x->user, json_string_value(value), json_string_length(value), err);
    }
    return BB_OK;
}

static bb_status extract_record(bb_pack_extractor *x, const json_t *record, bb_error *err) {
    int64_t found = 0;
    x->records++;
    BB_TRY(search(x, record, false, &found, err));
    if (found == 0) x->empty_records++;
    return BB_OK;
}

static bb_status extract_value(bb_pack_extractor *x, const json_t *value, bb_error *err) {
    if (!json_is_array(value)) return extract_record(x, value, err);
    size_t i;
    json_t *record;
    json_array_foreach(value, i, record) BB_TRY(extract_record(x, record, err));
    return BB_OK;
}

static size_t skip_space(const char *text, size_t size, size_t at) {
    while (at < size && strchr(" \t\r\n", text[at]) && text[at]) at++;
    return at;
}

/* ---- Not JSON, but written by other programs --------------------------------------------------------------------------- */

static size_t digits(const char *text, size_t size) {
    size_t n = 0;
    while (n < size && text[n] >= '0' && text[n] <= '9') n++;
    return n;
}

/* Returns the length of the JSON number, NaN or Infinity that begins here, or 0. */
static size_t number_length(const char *text, size_t size) {
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (size >= strlen(words[i]) && memcmp(text, words[i], strlen(words[i])) == 0) return strlen(words[i]);
    size_t at = size > 0 && text[0] == '-', whole = digits(text + at, size - at);
    if (whole == 0) return 0;
    at += text[at] == '0' ? 1 : whole; /* 01 is not a valid number */
    if (at + 1 < size && text[at] == '.' && digits(text + at + 1, size - at - 1) > 0)
        at += 1 + digits(text + at + 1, size - at - 1);
    if (at < size && (text[at] == 'e' || text[at] == 'E')) {
        size_t sign = at + 1 < size && (text[at + 1] == '+' || text[at + 1] == '-');
        size_t exponent = digits(text + at + 1 + sign, size - at - 1 - sign);
        if (exponent > 0) at += 1 + sign + exponent;
    }
    return at;
}

/* Returns the UTF-16 unit of \uXXXX, or -1. */
static long escaped_unit(const char *text, size_t size) {
    char hex[5] = {0}, *end;
    if (size < 6 || text[0] != '\\' || text[1] != 'u') return -1;
    memcpy(hex, text + 2, 4);
    if (strspn(hex, "0123456789abcdefABCDEF") != 4) return -1;
    return strtol(hex, &end, 16);
}

/* Returns the length of the escape at text, and overwrites a lone surrogate with U+FFFD. */
static size_t repair_escape(char *text, size_t size) {
    long unit = escaped_unit(text, size);
    if (unit < 0) return size < 2 ? size : 2;
    if (unit < 0xd800 || unit > 0xdfff) return 6;
    long next = escaped_unit(text + 6, size - 6);
    if (unit < 0xdc00 && next >= 0xdc00 && next <= 0xdfff) return 12;
    static const char replacement[6] = {'\\', 'u', 'f', 'f', 'f', 'd'};
    memcpy(text, replacement, sizeof replacement);
    return 6;
}

/* Makes text strict JSON. Numbers are never text, so each is replaced by 0, padded to its length. Other errors remain, at the
 * same position. */
static void make_strict(char *text, size_t size) {
    bool in_string = false;
    for (size_t at = 0; at < size;) {
        size_t length = 1;
        if (text[at] == '"') {
            in_string = !in_string;
        } else if (in_string && text[at] == '\\') {
            length = repair_escape(text + at, size - at);
        } else if (!in_string && number_length(text + at, size - at) > 0) {
            length = number_length(text + at, size - at);
            memset(text + at, ' ', length);
            text[at] = '0';
        }
        at += length;
    }
}

bb_status bb_pack_extract(bb_pack_extractor *x, char *text, size_t size, bool one_value, int64_t line, bb_error *err) {
    /* Only the text of a record matters. Integers of any length are accepted: read as reals, they do not overflow. */
    size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL | (one_value ? 0 : JSON_DISABLE_EOF_CHECK);
    size_t at = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* a byte order mark */
    bool strict = false;                                                   /* the rest of the text has been made strict JSON */
    for (at = skip_space(text, size, at); at < size; at = skip_space(text, size, at)) {
        json_error_t where;
        json_t *value = json_loadb(text + at, size - at, flags, &where);
        if (!value && json_error_code(&where) != json_error_out_of_memory && !strict) {
            make_strict(text + at, size - at);
            strict = true;
            continue;
        }
        if (!value) {
            for (const char *p = text; (p = memchr(p, '\n', (size_t)(text + at - p))); p++) line++;
            bool no_memory = json_error_code(&where) == json_error_out_of_memory;
            return bb_fail(err, no_memory ? BB_ERR_MEMORY : BB_ERR_FORMAT, "line %" PRId64 ": malformed JSON: %s",
                           line + where.line - 1, where.text);
        }
        bb_status status = extract_value(x, value, err);
        json_decref(value);
        BB_TRY(status);
        at += (size_t)where.position;
    }
    return BB_OK;
}
