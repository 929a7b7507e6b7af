// SPDX-License-Identifier: MIT
/* Converts option values from and to text. */
#include "cli_value.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_nearest.h"

__attribute__((format(printf, 2, 3))) static bb_status refuse(bb_error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    err->code = BB_ERR_ARGUMENT;
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return err->code;
}

void bb_cli_double_text(double value, char *out, size_t size) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value) return;
    }
}

bool bb_cli_lists_choice(const bb_cli_option *option, int i) {
    return option->choices[i] && (option->listed_choices == 0 || i < option->listed_choices);
}

/* Writes what is expected: "a whole number from 1 to 8", "a number above 0", "adamw or adamw8bit". */
static void expected_text(const bb_cli_option *option, char *out, size_t size) {
    if (option->type == BB_CLI_CHOICE) {
        size_t used = 0;
        out[0] = '\0';
        for (int i = 0; bb_cli_lists_choice(option, i) && used < size; i++) {
            const char *join = i == 0 ? "" : bb_cli_lists_choice(option, i + 1) ? ", " : " or ";
            used += (size_t)snprintf(out + used, size - used, "%s%s", join, option->choices[i]);
        }
        return;
    }
    const char *kind = option->type == BB_CLI_DOUBLE ? "a number" : "a whole number";
    const bb_cli_range *range = &option->range;
    char min[32], max[32];
    bb_cli_double_text(range->min, min, sizeof min);
    bb_cli_double_text(range->max, max, sizeof max);
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
    /* No hexadecimal, inf or nan. */
    return end != text && *end == '\0' && isfinite(*out) && strspn(text, "+-.0123456789eE") == strlen(text);
}

bb_status bb_cli_value_set(const bb_cli_row *row, const char *text, bb_error *err) {
    const bb_cli_option *option = row->option;
    int64_t integer = 0;
    double number = 0;
    bool good = true;
    switch (option->type) {
    case BB_CLI_STRING: *(const char **)row->target = text; return BB_OK;
    case BB_CLI_CHOICE:
        for (int i = 0; option->choices[i]; i++) {
            if (strcmp(option->choices[i], text) != 0) continue;
            *(int *)row->target = i;
            return BB_OK;
        }
        good = false;
        break;
    case BB_CLI_INT:
        good = read_integer(text, &integer) && integer >= INT_MIN && integer <= INT_MAX &&
               in_range(&option->range, (double)integer);
        if (good) *(int *)row->target = (int)integer;
        break;
    case BB_CLI_INT64:
        good = read_integer(text, &integer) && in_range(&option->range, (double)integer);
        if (good) *(int64_t *)row->target = integer;
        break;
    case BB_CLI_DOUBLE:
        good = read_number(text, &number) && in_range(&option->range, number);
        if (good) *(double *)row->target = number;
        break;
    case BB_CLI_FLAG:
    case BB_CLI_LIST: break; /* handled by the parser */
    }
    if (good) return BB_OK;
    char expected[256];
    expected_text(option, expected, sizeof expected);
    const char *nearest = option->type == BB_CLI_CHOICE ? bb_cli_nearest(text, option->choices) : NULL;
    if (nearest) return refuse(err, "--%s: expected %s, found '%s'; did you mean '%s'?", option->name, expected, text, nearest);
    return refuse(err, "--%s: expected %s, found '%s'", option->name, expected, text);
}

void bb_cli_value_text(const bb_cli_row *row, char *out, size_t size) {
    out[0] = '\0';
    switch (row->option->type) {
    case BB_CLI_FLAG: snprintf(out, size, "%s", *(const bool *)row->target ? "on" : "off"); break;
    case BB_CLI_INT: snprintf(out, size, "%d", *(const int *)row->target); break;
    case BB_CLI_INT64: snprintf(out, size, "%lld", (long long)*(const int64_t *)row->target); break;
    case BB_CLI_DOUBLE: bb_cli_double_text(*(const double *)row->target, out, size); break;
    case BB_CLI_CHOICE: snprintf(out, size, "%s", row->option->choices[*(const int *)row->target]); break;
    case BB_CLI_STRING: {
        const char *text = *(const char *const *)row->target;
        if (text) snprintf(out, size, "%s", text);
        break;
    }
    case BB_CLI_LIST: {
        const bb_cli_list *list = row->target;
        size_t used = 0;
        for (int i = 0; i < list->count && used < size; i++)
            used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " " : "", list->items[i]);
        break;
    }
    }
}
