// SPDX-License-Identifier: MIT
/* Converts option values from and to JSON. */
#include "cli_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_message.h"
#include "cli_value.h"
#include "json_out.h"

static json_t *value_json(const bb_cli_row *row) {
    switch (row->option->type) {
    case BB_CLI_FLAG: return json_boolean(*(const bool *)row->target);
    case BB_CLI_INT: return json_integer(*(const int *)row->target);
    case BB_CLI_INT64: return json_integer(*(const int64_t *)row->target);
    case BB_CLI_DOUBLE: return json_real(*(const double *)row->target);
    case BB_CLI_CHOICE: return json_string(row->option->choices[*(const int *)row->target]);
    case BB_CLI_STRING: {
        const char *text = *(const char *const *)row->target;
        return text ? bb_json_path_string(text) : json_null();
    }
    case BB_CLI_LIST: break;
    }
    const bb_cli_list *list = row->target;
    json_t *array = json_array();
    for (int i = 0; array && i < list->count; i++) json_array_append_new(array, bb_json_path_string(list->items[i]));
    return array;
}

json_t *bb_cli_to_json(const bb_cli *cli, bool results) {
    json_t *object = json_object();
    for (int i = 0; object && i < cli->row_count; i++) {
        const bb_cli_row *row = &cli->rows[i];
        if (!row->option->name) continue;
        if (results && (row->option->path || row->option->saved > BB_CLI_SAVED_FUTURE)) continue;
        if (json_object_set_new(object, row->option->name, value_json(row)) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* Unescapes a path that is not UTF-8, in place. */
static bool restore_path(json_t *value) {
    char *path = bb_path_from_text(json_string_value(value));
    bool good = path && json_string_set_nocheck(value, path) == 0;
    bb_string_free(path);
    return good;
}

/* Writes a saved value as text, so that it can be checked like a typed one. */
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
        bb_cli_double_text(json_number_value(value), out, size);
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

static int add_change(const bb_cli *cli, const char *name, const char *ours, const char *theirs, char **changes) {
    char *longer = NULL, *before = *changes;
    const char *value = ours[0] ? ours : "none", *was = theirs[0] ? theirs : "none";
    if (asprintf(&longer, "%s%s--%s %s (was %s)", before ? before : "", before ? ", " : "", name, value, was) < 0)
        return bb_cli_failure(cli->command, "out of memory");
    free(before);
    *changes = longer;
    return BB_CLI_CONTINUE;
}

int bb_cli_from_json(const bb_cli *cli, json_t *saved, const char *where, bool same_run, char **changes) {
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_row *row = &cli->rows[i];
        const bb_cli_option *option = row->option;
        json_t *value = option->name ? json_object_get(saved, option->name) : NULL;
        if (!value || option->saved == BB_CLI_SAVED_CALL) continue;
        char theirs[4096], ours[4096];
        if (option->type == BB_CLI_STRING && json_is_string(value) && !restore_path(value))
            return bb_cli_failure(cli->command, "%s: out of memory for \"%s\"", where, option->name);
        if (!saved_text(option, value, theirs, sizeof theirs))
            return bb_cli_failure(cli->command, "%s: \"%s\" has an invalid value", where, option->name);
        bb_cli_value_text(row, ours, sizeof ours);
        /* Equal values need no check: a default may lie outside the allowed range. */
        if (strcmp(theirs, ours) == 0) continue;
        if (row->given) {
            if (option->saved == BB_CLI_SAVED_FIXED && same_run)
                return bb_cli_usage_error(cli->command,
                                          "--%s %s contradicts the run being resumed: %s has %s. Model, seed and optimizer of "
                                          "a run cannot change; omit "
                                          "the option",
                                          option->name, ours, where, theirs[0] ? theirs : "none");
            int status = add_change(cli, option->name, ours, theirs, changes);
            if (status != BB_CLI_CONTINUE) return status;
            continue;
        }
        if (option->type == BB_CLI_FLAG) {
            *(bool *)row->target = json_is_true(value);
        } else if (option->type == BB_CLI_STRING) {
            /* Points into the object, which outlives the options. */
            *(const char **)row->target = json_is_null(value) ? NULL : json_string_value(value);
        } else {
            bb_error err;
            if (bb_cli_value_set(row, theirs, &err) != BB_OK) return bb_cli_failure(cli->command, "%s: %s", where, err.message);
        }
    }
    return BB_CLI_CONTINUE;
}
