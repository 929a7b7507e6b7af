// SPDX-License-Identifier: MIT
/* Parses a command line by its option table. Errors say what was expected; help is generated from the same table. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_help.h"
#include "cli_nearest.h"
#include "cli_value.h"

enum { MAX_NAME = 64 };

static void normalize(const char *text, size_t length, char out[MAX_NAME]) {
    size_t n = length < MAX_NAME - 1 ? length : MAX_NAME - 1;
    for (size_t i = 0; i < n; i++) out[i] = text[i] == '-' ? '_' : text[i];
    out[n] = '\0';
}

/* Adds the rows of a table, with groups expanded. Too many rows is a bug in this program. */
static void add_rows(bb_cli *cli, const bb_cli_option *options, int count, void *args) {
    for (int i = 0; i < count; i++) {
        void *field = (char *)args + options[i].offset;
        if (options[i].group)
            add_rows(cli, options[i].group->options, options[i].group->count, field);
        else if (cli->row_count < BB_CLI_MAX_ROWS)
            cli->rows[cli->row_count++] = (bb_cli_row){.option = &options[i], .target = field};
        else
            abort();
    }
}

static bb_cli_row *find(bb_cli *cli, const char *name) {
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_option *option = cli->rows[i].option;
        if (option->name && strcmp(option->name, name) == 0) return &cli->rows[i];
    }
    return NULL;
}

bool bb_cli_given(const bb_cli *cli, const char *name) {
    for (int i = 0; i < cli->row_count; i++)
        if (cli->rows[i].given && strcmp(cli->rows[i].option->name, name) == 0) return true;
    return false;
}

void bb_cli_unused(const bb_cli *cli, const char *name, const char *why) {
    if (bb_cli_given(cli, name)) fprintf(stderr, "bitbyte %s: note: --%s has no effect: %s\n", cli->command->name, name, why);
}

static int unknown_option(bb_cli *cli, const char *argument, const char *name) {
    const char *names[BB_CLI_MAX_ROWS + 2];
    int count = 0;
    for (int i = 0; i < cli->row_count; i++)
        if (cli->rows[i].option->name) names[count++] = cli->rows[i].option->name;
    names[count++] = "help";
    names[count] = NULL;
    const char *nearest = bb_cli_nearest(name, names);
    /* -p for --prompt: for a single letter, the first letter is a better hint than the edit distance */
    for (int i = 0; i < count && name[0] && !name[1]; i++) {
        if (names[i][0] != name[0]) continue;
        return bb_cli_usage_error(cli->command, "unknown option '%s': there are no short options; did you mean '--%s'?",
                                  argument, names[i]);
    }
    if (nearest) return bb_cli_usage_error(cli->command, "unknown option '%s'; did you mean '--%s'?", argument, nearest);
    return bb_cli_usage_error(cli->command, "unknown option '%s'", argument);
}

/* Returns whether an argument is "--name" of an option of this command. */
static bool names_an_option(bb_cli *cli, const char *argument) {
    if (strncmp(argument, "--", 2) != 0) return false;
    char name[MAX_NAME] = "";
    const char *equals = strchr(argument, '=');
    normalize(argument + 2, equals ? (size_t)(equals - argument - 2) : strlen(argument + 2), name);
    return find(cli, name) != NULL;
}

static int parse_value(bb_cli *cli, bb_cli_row *row, const char *text) {
    bb_error err;
    if (bb_cli_value_set(row, text, &err) != BB_OK) return bb_cli_usage_error(cli->command, "%s", err.message);
    row->given = true;
    return BB_CLI_CONTINUE;
}

/* The first use replaces the default. capacity: maximum number of items. */
static int add_item(bb_cli *cli, bb_cli_row *row, const char *text, int capacity) {
    bb_cli_list *list = row->target;
    if (!row->given) {
        const char **items = calloc((size_t)capacity, sizeof *items);
        if (!items) return bb_cli_usage_error(cli->command, "out of memory");
        list->items = items;
        list->count = 0;
        row->given = true;
    }
    list->items[list->count++] = text;
    return BB_CLI_CONTINUE;
}

/* The shell expands globs that are not quoted. */
static int unexpected_argument(const bb_cli *cli, const char *text) {
    if (access(text, F_OK) == 0)
        return bb_cli_usage_error(cli->command, "unexpected argument '%s': put globs in quotes, e.g. 'data/*.bin'", text);
    return bb_cli_usage_error(cli->command, "unexpected argument '%s'", text);
}

static int parse_positional(bb_cli *cli, const char *text, int *position, int capacity) {
    for (int i = 0; i < cli->row_count; i++) {
        bb_cli_row *row = &cli->rows[i];
        if (row->option->position == 0 || row->option->position != *position) continue;
        if (row->option->type == BB_CLI_LIST) return add_item(cli, row, text, capacity);
        ++*position;
        if (row->given) {
            i = -1; /* already given by name: try the next position */
            continue;
        }
        return parse_value(cli, row, text);
    }
    return unexpected_argument(cli, text);
}

/* "--exts txt folder": a list takes all arguments after it, including inputs. */
static int missing_argument(const bb_cli *cli, const bb_cli_option *missing) {
    const bb_cli_command *command = cli->command;
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_option *option = cli->rows[i].option;
        const bb_cli_list *list = cli->rows[i].target;
        if (option->type != BB_CLI_LIST || option->position || !cli->rows[i].given) continue;
        const char *last = list->items[list->count - 1];
        if (access(last, F_OK) == 0)
            return bb_cli_usage_error(
                command, "%s is missing: --%s takes all arguments after it, including '%s'; put %s first, or write --%s %s",
                missing->value, option->name, last, missing->value, missing->name, last);
    }
    return bb_cli_usage_error(command, "%s is missing: bitbyte %s %s", missing->value, command->name, command->usage);
}

static bb_cli_row *find_letter(bb_cli *cli, char letter) {
    for (int i = 0; i < cli->row_count; i++) {
        char of_row = cli->rows[i].option->letter;
        if (of_row && (of_row == letter || (of_row == '#' && letter >= '0' && letter <= '9'))) return &cli->rows[i];
    }
    return NULL;
}

/* "-kd", "-T4", "-o FILE", "-5": one-letter options, if the first letter is one. Leaves *at on the last argument used. */
static int parse_letters(bb_cli *cli, int argc, char **argv, int *at) {
    for (const char *letter = argv[*at] + 1; *letter; letter++) {
        bb_cli_row *row = find_letter(cli, *letter);
        if (!row) return bb_cli_usage_error(cli->command, "unknown option '-%c' in '%s'", *letter, argv[*at]);
        if (row->option->type == BB_CLI_FLAG) {
            *(bool *)row->target = true;
            row->given = true;
            continue;
        }
        const char *value = row->option->letter == '#' ? letter : letter + 1;
        if (!*value && ++*at >= argc)
            return bb_cli_usage_error(cli->command, "-%c needs a value: %s", *letter, row->option->value);
        return parse_value(cli, row, *value ? value : argv[*at]);
    }
    return BB_CLI_CONTINUE;
}

/* Parses the option at argv[*at] and its values. Leaves *at on the last argument used. */
static int parse_option(bb_cli *cli, int argc, char **argv, int *at) {
    const bb_cli_command *command = cli->command;
    const char *argument = argv[*at];
    const char *equals = strchr(argument, '=');
    char name[MAX_NAME] = "";
    const char *start = argument + strspn(argument, "-");
    if (equals && equals < start) equals = NULL;
    normalize(start, equals ? (size_t)(equals - start) : strlen(start), name);
    bb_cli_row *row = strncmp(argument, "--", 2) == 0 ? find(cli, name) : NULL;
    if (!row) return unknown_option(cli, argument, name);
    const bb_cli_option *option = row->option;
    if (option->type == BB_CLI_FLAG) {
        if (equals) return bb_cli_usage_error(command, "--%s takes no value, found '%s'", name, equals + 1);
        *(bool *)row->target = true;
        row->given = true;
        return BB_CLI_CONTINUE;
    }
    if (option->type == BB_CLI_LIST && !option->one_each) {
        if (equals) return add_item(cli, row, equals + 1, argc);
        int first = *at;
        while (*at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0) {
            int status = add_item(cli, row, argv[++*at], argc);
            if (status != BB_CLI_CONTINUE) return status;
        }
        if (*at == first) return bb_cli_usage_error(command, "--%s needs at least one %s after it", name, option->value);
        return BB_CLI_CONTINUE;
    }
    bool list = option->type == BB_CLI_LIST;
    if (equals) return list ? add_item(cli, row, equals + 1, argc) : parse_value(cli, row, equals + 1);
    if (*at + 1 >= argc) return bb_cli_usage_error(command, "--%s needs a value: %s", name, option->value);
    const char *value = argv[++*at];
    if (names_an_option(cli, value))
        return bb_cli_usage_error(command, "--%s needs a value, found the option '%s' (write --%s=%s if that is the value)",
                                  name, value, name, value);
    return list ? add_item(cli, row, value, argc) : parse_value(cli, row, value);
}

int bb_cli_parse(bb_cli *cli, const bb_cli_command *command, void *args, int argc, char **argv) {
    int position = 1;
    bool options_end = false;
    cli->command = command;
    cli->row_count = 0;
    add_rows(cli, command->options, command->option_count, args);
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        int status;
        if (!options_end && strcmp(argument, "--") == 0) {
            options_end = true;
            continue;
        }
        if (!options_end && (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0)) {
            bb_cli_help(cli, stdout);
            return BB_EXIT_OK;
        }
        if (!options_end && strncmp(argument, "--help=", 7) == 0) {
            if (bb_cli_help_as(cli, argument + 7, stdout)) return BB_EXIT_OK;
            return bb_cli_usage_error(command, "--help=%s: expected man or complete", argument + 7);
        }
        if (options_end || argument[0] != '-' || argument[1] == '\0')
            status = parse_positional(cli, argument, &position, argc);
        else if (argument[1] != '-' && find_letter(cli, argument[1]))
            status = parse_letters(cli, argc, argv, &i);
        else
            status = parse_option(cli, argc, argv, &i);
        if (status != BB_CLI_CONTINUE) return status;
    }
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_option *option = cli->rows[i].option;
        if (!option->required || cli->rows[i].given) continue;
        if (option->position) return missing_argument(cli, option);
        return bb_cli_usage_error(command, "--%s %s is missing", option->name, option->value);
    }
    return BB_CLI_CONTINUE;
}

void bb_cli_free(bb_cli *cli) {
    for (int i = 0; i < cli->row_count; i++) {
        if (cli->rows[i].option->type != BB_CLI_LIST || !cli->rows[i].given) continue;
        bb_cli_list *list = cli->rows[i].target;
        free(list->items);
        *list = (bb_cli_list){0};
    }
}
