// SPDX-License-Identifier: MIT
/* Values of options: from text, to text, from and to JSON. */
#include "cli_value.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static bb_status refuse(bb_error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    err->code = BB_ERR_ARGUMENT;
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return err->code;
}

/* Decimal text that reads back as the same number, no longer than that needs. */
static void double_text(double value, char *out, size_t size) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value) return;
    }
}

/* "a whole number from 1 to 8", "a number above 0", "adamw or adamw8bit". */
static void expected_text(const bb_cli_option *option, char *out, size_t size) {
    if (option->type == BB_CLI_CHOICE) {
        size_t used = 0;
        out[0] = '\0';
        for (int i = 0; option->choices[i] && used < size; i++) {
            const char *join = i == 0 ? "" : option->choices[i + 1] ? ", " : " or ";
            used += (size_t)snprintf(out + used, size - used, "%s%s", join, option->choices[i]);
        }
        return;
    }
    const char *kind = option->type == BB_CLI_DOUBLE ? "a number" : "a whole number";
    const bb_cli_range *range = &option->range;
    char min[32], max[32];
    double_text(range->min, min, sizeof min);
    double_text(range->max, max, sizeof max);
    if (!range->set)
        snprintf(out, size, "%s", kind);
    else if (isinf(range->max))
        snprintf(out, size, "%s %s %s", kind, range->above_min ? "above" : "of at least", min);
    else
        snprintf(out, size, range->above_min ? "%s above %s, at most %s" : "%s from %s to %s", kind, min, max);
}

static bool in_range(const bb_cli_range *range, double value) {
    if (!range->set) return true;
    return (range->above_min ? value > range->min : value >= range->min) && value <= range->max;
}

static bool read_integer(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    *out = value;
    return end != text && *end == '\0' && errno == 0 && strchr(" \t\n", text[0]) == NULL;
}

static bool read_number(const char *text, double *out) {
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    /* Hexadecimal, inf and nan are not what someone types here. */
    return end != text && *end == '\0' && isfinite(*out) && strspn(text, "+-.0123456789eE") == strlen(text);
}

bb_status bb_cli_value_set(const bb_cli_option *option, const char *text, bb_error *err) {
    int64_t integer = 0;
    double number = 0;
    bool good = true;
    switch (option->type) {
    case BB_CLI_STRING: *(const char **)option->target = text; return BB_OK;
    case BB_CLI_CHOICE:
        for (int i = 0; option->choices[i]; i++) {
            if (strcmp(option->choices[i], text) != 0) continue;
            *(int *)option->target = i;
            return BB_OK;
        }
        good = false;
        break;
    case BB_CLI_INT:
        good = read_integer(text, &integer) && integer >= INT_MIN && integer <= INT_MAX &&
               in_range(&option->range, (double)integer);
        if (good) *(int *)option->target = (int)integer;
        break;
    case BB_CLI_INT64:
        good = read_integer(text, &integer) && in_range(&option->range, (double)integer);
        if (good) *(int64_t *)option->target = integer;
        break;
    case BB_CLI_DOUBLE:
        good = read_number(text, &number) && in_range(&option->range, number);
        if (good) *(double *)option->target = number;
        break;
    case BB_CLI_FLAG:
    case BB_CLI_LIST: break; /* the parser's own */
    }
    if (good) return BB_OK;
    char expected[256];
    expected_text(option, expected, sizeof expected);
    const char *nearest = option->type == BB_CLI_CHOICE ? bb_cli_nearest(text, option->choices) : NULL;
    if (nearest) return refuse(err, "--%s: expected %s, found '%s'; did you mean '%s'?", option->name, expected, text, nearest);
    return refuse(err, "--%s: expected %s, found '%s'", option->name, expected, text);
}

void bb_cli_value_text(const bb_cli_option *option, char *out, size_t size) {
    out[0] = '\0';
    switch (option->type) {
    case BB_CLI_FLAG: snprintf(out, size, "%s", *(const bool *)option->target ? "on" : "off"); break;
    case BB_CLI_INT: snprintf(out, size, "%d", *(const int *)option->target); break;
    case BB_CLI_INT64: snprintf(out, size, "%lld", (long long)*(const int64_t *)option->target); break;
    case BB_CLI_DOUBLE: double_text(*(const double *)option->target, out, size); break;
    case BB_CLI_CHOICE: snprintf(out, size, "%s", option->choices[*(const int *)option->target]); break;
    case BB_CLI_STRING: {
        const char *text = *(const char *const *)option->target;
        if (text) snprintf(out, size, "%s", text);
        break;
    }
    case BB_CLI_LIST: {
        const bb_cli_list *list = option->target;
        size_t used = 0;
        for (int i = 0; i < list->count && used < size; i++)
            used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " " : "", list->items[i]);
        break;
    }
    }
}

static json_t *value_json(const bb_cli_option *option) {
    switch (option->type) {
    case BB_CLI_FLAG: return json_boolean(*(const bool *)option->target);
    case BB_CLI_INT: return json_integer(*(const int *)option->target);
    case BB_CLI_INT64: return json_integer(*(const int64_t *)option->target);
    case BB_CLI_DOUBLE: return json_real(*(const double *)option->target);
    case BB_CLI_CHOICE: return json_string(option->choices[*(const int *)option->target]);
    case BB_CLI_STRING: {
        const char *text = *(const char *const *)option->target;
        /* Paths are bytes; JSON text is UTF-8. */
        return text ? json_string_nocheck(text) : json_null();
    }
    case BB_CLI_LIST: break;
    }
    const bb_cli_list *list = option->target;
    json_t *array = json_array();
    for (int i = 0; array && i < list->count; i++) json_array_append_new(array, json_string_nocheck(list->items[i]));
    return array;
}

json_t *bb_cli_to_json(const bb_cli_command *command) {
    json_t *object = json_object();
    for (int i = 0; object && i < command->option_count; i++) {
        const bb_cli_option *option = &command->options[i];
        if (!option->name) continue;
        if (json_object_set_new(object, option->name, value_json(option)) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* A saved value as text, so that it passes the same checks as a typed one. */
static bool saved_text(const bb_cli_option *option, const json_t *value, char *out, size_t size) {
    switch (option->type) {
    case BB_CLI_FLAG:
        if (!json_is_boolean(value)) return false;
        snprintf(out, size, "%s", json_is_true(value) ? "on" : "off");
        return true;
    case BB_CLI_INT:
    case BB_CLI_INT64:
        if (!json_is_integer(value)) return false;
        snprintf(out, size, "%lld", (long long)json_integer_value(value));
        return true;
    case BB_CLI_DOUBLE:
        if (!json_is_number(value)) return false;
        double_text(json_number_value(value), out, size);
        return true;
    case BB_CLI_CHOICE:
    case BB_CLI_STRING:
        if (json_is_null(value))
            out[0] = '\0';
        else if (!json_is_string(value) || strlen(json_string_value(value)) >= size)
            return false;
        else
            snprintf(out, size, "%s", json_string_value(value));
        return true;
    case BB_CLI_LIST: break;
    }
    return false;
}

int bb_cli_from_json(const bb_cli_command *command, const json_t *saved, const char *where) {
    for (int i = 0; i < command->option_count; i++) {
        const bb_cli_option *option = &command->options[i];
        const json_t *value = option->name ? json_object_get(saved, option->name) : NULL;
        if (!value || option->saved == BB_CLI_SAVED_CALL) continue;
        char theirs[4096], ours[4096];
        if (!saved_text(option, value, theirs, sizeof theirs))
            return bb_cli_failure(command, "%s: \"%s\" does not hold a value of that option", where, option->name);
        bb_cli_value_text(option, ours, sizeof ours);
        /* A default may lie outside the range that can be typed: equal is good enough. */
        if (strcmp(theirs, ours) == 0) continue;
        if (option->given) {
            if (option->saved == BB_CLI_SAVED_FREE) continue;
            return bb_cli_usage_error(command,
                                      "--%s %s contradicts the run being resumed: %s has %s. Leave the option out, or resume "
                                      "from a checkpoint file to change it",
                                      option->name, ours, where, theirs[0] ? theirs : "none");
        }
        if (option->type == BB_CLI_FLAG) {
            *(bool *)option->target = json_is_true(value);
        } else if (option->type == BB_CLI_STRING) {
            /* Borrowed: the object outlives the options. */
            *(const char **)option->target = json_is_null(value) ? NULL : json_string_value(value);
        } else {
            bb_error err;
            if (bb_cli_value_set(option, theirs, &err) != BB_OK) return bb_cli_failure(command, "%s: %s", where, err.message);
        }
    }
    return BB_CLI_GO_ON;
}

/* Fewest significant digits, at least `digits`, with which every real in `json` reads back as itself. */
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

char *bb_cli_json_text(json_t *json, size_t flags) {
    return json_dumps(json, flags | JSON_REAL_PRECISION((size_t)exact_digits(json, 6)));
}
