// SPDX-License-Identifier: MIT
/* Parsing a command line by its table, with errors that say what was expected and help made from the same rows. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli_value.h"

enum { MAX_OPTIONS = 128, MAX_NAME = 64 };

static void normalise(const char *text, size_t length, char out[MAX_NAME]) {
    size_t n = length < MAX_NAME - 1 ? length : MAX_NAME - 1;
    for (size_t i = 0; i < n; i++) out[i] = text[i] == '-' ? '_' : text[i];
    out[n] = '\0';
}

static bb_cli_option *find(const bb_cli_command *command, const char *name) {
    for (int i = 0; i < command->option_count; i++) {
        bb_cli_option *option = &command->options[i];
        if (option->name && strcmp(option->name, name) == 0) return option;
    }
    return NULL;
}

bool bb_cli_given(const bb_cli_command *command, const char *name) {
    const bb_cli_option *option = find(command, name);
    return option && option->given;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment: insertions, deletions, replacements and swaps of neighbours count one each. */
static int edit_distance(const char *a, const char *b) {
    int m = smaller((int)strlen(a), MAX_NAME), n = smaller((int)strlen(b), MAX_NAME);
    int row[3][MAX_NAME + 1];
    for (int j = 0; j <= n; j++) row[0][j] = j;
    for (int i = 1; i <= m; i++) {
        int *now = row[i % 3];
        const int *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= n; j++) {
            now[j] = smaller(smaller(last[j] + 1, now[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = smaller(now[j], before[j - 2] + 1);
        }
    }
    return row[m % 3][n];
}

const char *bb_cli_nearest(const char *word, const char *const *names) {
    const char *best = NULL;
    size_t length = strlen(word);
    int best_distance = 1 + smaller(4, 1 + (int)length / 3);
    for (int i = 0; names[i]; i++) {
        int distance = edit_distance(word, names[i]);
        /* The beginning of a name says which one was meant, however long the rest is. */
        if (length >= 3 && strncmp(names[i], word, length) == 0) distance = smaller(distance, 1);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

static bb_error *held; /* where messages go; NULL: standard error */

void bb_cli_hold(bb_error *to) { held = to; }

static int say(const bb_cli_command *command, int exit_status, const char *fmt, va_list args) {
    if (held) {
        held->code = exit_status == BB_EXIT_USAGE ? BB_ERR_ARGUMENT : BB_ERR_IO;
        vsnprintf(held->message, sizeof held->message, fmt, args);
        return exit_status;
    }
    fflush(stdout);
    fprintf(stderr, "bitbyte %s: ", command->name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    return exit_status;
}

int bb_cli_usage_error(const bb_cli_command *command, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(command, BB_EXIT_USAGE, fmt, args);
    va_end(args);
    if (!held) fprintf(stderr, "See 'bitbyte help %s'.\n", command->name);
    return BB_EXIT_USAGE;
}

int bb_cli_failure(const bb_cli_command *command, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(command, BB_EXIT_FAILURE, fmt, args);
    va_end(args);
    return BB_EXIT_FAILURE;
}

int bb_cli_fail(const bb_cli_command *command, const bb_error *err) {
    bb_cli_failure(command, "%s", err->message);
    if (held) held->code = err->code;
    return err->code == BB_ERR_ARGUMENT ? BB_EXIT_USAGE : BB_EXIT_FAILURE;
}

static int unknown_option(const bb_cli_command *command, const char *argument, const char *name) {
    const char *names[MAX_OPTIONS + 2];
    int count = 0;
    for (int i = 0; i < command->option_count && count < MAX_OPTIONS; i++)
        if (command->options[i].name) names[count++] = command->options[i].name;
    names[count++] = "help";
    names[count] = NULL;
    const char *nearest = bb_cli_nearest(name, names);
    if (nearest) return bb_cli_usage_error(command, "unknown option '%s'; did you mean '--%s'?", argument, nearest);
    return bb_cli_usage_error(command, "unknown option '%s'", argument);
}

/* "--name" as an argument that names an option of this command. */
static bool names_an_option(const bb_cli_command *command, const char *argument) {
    if (strncmp(argument, "--", 2) != 0) return false;
    char name[MAX_NAME] = "";
    const char *equals = strchr(argument, '=');
    normalise(argument + 2, equals ? (size_t)(equals - argument - 2) : strlen(argument + 2), name);
    return find(command, name) != NULL;
}

static int take_value(const bb_cli_command *command, bb_cli_option *option, const char *text) {
    bb_error err;
    if (bb_cli_value_set(option, text, &err) != BB_OK) return bb_cli_usage_error(command, "%s", err.message);
    option->given = true;
    return BB_CLI_GO_ON;
}

/* The first use replaces the default. Room for every argument that could follow. */
static int take_item(const bb_cli_command *command, bb_cli_option *option, const char *text, int room) {
    bb_cli_list *list = option->target;
    if (!option->given) {
        const char **items = calloc((size_t)room, sizeof *items);
        if (!items) return bb_cli_usage_error(command, "out of memory");
        list->items = items;
        list->count = 0;
        option->given = true;
    }
    list->items[list->count++] = text;
    return BB_CLI_GO_ON;
}

static int take_positional(const bb_cli_command *command, const char *text, int *position, int room) {
    for (int i = 0; i < command->option_count; i++) {
        bb_cli_option *option = &command->options[i];
        if (option->position == 0 || option->position != *position) continue;
        if (option->type == BB_CLI_LIST) return take_item(command, option, text, room);
        ++*position;
        if (option->given) {
            i = -1; /* given by name already: the argument is for the next place */
            continue;
        }
        return take_value(command, option, text);
    }
    return bb_cli_usage_error(command, "unexpected argument '%s'", text);
}

/* The option at argv[*at], with what belongs to it; leaves *at on the last argument used. */
static int take_option(const bb_cli_command *command, int argc, char **argv, int *at) {
    const char *argument = argv[*at];
    const char *equals = strchr(argument, '=');
    char name[MAX_NAME] = "";
    const char *start = argument + strspn(argument, "-");
    if (equals && equals < start) equals = NULL;
    normalise(start, equals ? (size_t)(equals - start) : strlen(start), name);
    bb_cli_option *option = strncmp(argument, "--", 2) == 0 ? find(command, name) : NULL;
    if (!option) return unknown_option(command, argument, name);
    if (option->type == BB_CLI_FLAG) {
        if (equals) return bb_cli_usage_error(command, "--%s takes no value, found '%s'", name, equals + 1);
        *(bool *)option->target = true;
        option->given = true;
        return BB_CLI_GO_ON;
    }
    if (option->type == BB_CLI_LIST && !option->one_each) {
        if (equals) return take_item(command, option, equals + 1, argc);
        int first = *at;
        while (*at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0) {
            int status = take_item(command, option, argv[++*at], argc);
            if (status != BB_CLI_GO_ON) return status;
        }
        if (*at == first) return bb_cli_usage_error(command, "--%s needs at least one %s after it", name, option->value);
        return BB_CLI_GO_ON;
    }
    bool list = option->type == BB_CLI_LIST;
    if (equals) return list ? take_item(command, option, equals + 1, argc) : take_value(command, option, equals + 1);
    if (*at + 1 >= argc) return bb_cli_usage_error(command, "--%s needs a value: %s", name, option->value);
    const char *value = argv[++*at];
    if (names_an_option(command, value))
        return bb_cli_usage_error(command, "--%s needs a value, found the option '%s' (write --%s=%s if that is the value)",
                                  name, value, name, value);
    return list ? take_item(command, option, value, argc) : take_value(command, option, value);
}

int bb_cli_parse(const bb_cli_command *command, int argc, char **argv) {
    int position = 1;
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        int status;
        if (!options_end && strcmp(argument, "--") == 0) {
            options_end = true;
            continue;
        }
        if (!options_end && (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0)) {
            bb_cli_help(command, stdout);
            return BB_EXIT_OK;
        }
        if (options_end || argument[0] != '-' || argument[1] == '\0')
            status = take_positional(command, argument, &position, argc);
        else
            status = take_option(command, argc, argv, &i);
        if (status != BB_CLI_GO_ON) return status;
    }
    for (int i = 0; i < command->option_count; i++) {
        const bb_cli_option *option = &command->options[i];
        if (!option->required || option->given) continue;
        if (option->position)
            return bb_cli_usage_error(command, "%s is missing: bitbyte %s %s", option->value, command->name, command->usage);
        return bb_cli_usage_error(command, "--%s %s is missing", option->name, option->value);
    }
    return BB_CLI_GO_ON;
}
