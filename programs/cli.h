// SPDX-License-Identifier: MIT
/* Command lines: one table a command gives its parser, its checks, its help and its JSON. */
#ifndef BB_PROGRAMS_CLI_H
#define BB_PROGRAMS_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "bitbyte.h"

enum { BB_EXIT_OK = 0, BB_EXIT_FAILURE = 1, BB_EXIT_USAGE = 2, BB_EXIT_OUT_OF_TIME = 3, BB_CLI_GO_ON = -1 };

typedef enum bb_cli_type {
    BB_CLI_FLAG,   /* bool: true when given, takes no value */
    BB_CLI_INT,    /* int */
    BB_CLI_INT64,  /* int64_t */
    BB_CLI_DOUBLE, /* double, finite */
    BB_CLI_STRING, /* const char *, points into argv */
    BB_CLI_CHOICE, /* int: place in `choices` */
    BB_CLI_LIST    /* bb_cli_list: every argument up to the next one that starts with "--" */
} bb_cli_type;

/* Items point into argv or at the default; an option given twice appends, its first use replaces the default. */
typedef struct bb_cli_list {
    const char **items; /* (count) */
    int count;
} bb_cli_list;

typedef struct bb_cli_range {
    double min, max; /* INFINITY: no upper limit */
    bool set;        /* false: every value that the type has */
    bool above_min;  /* min itself is excluded */
} bb_cli_range;

#define BB_CLI_AT_LEAST(a)                                                                                                     \
    { .set = true, .min = (a), .max = INFINITY }
#define BB_CLI_ABOVE(a)                                                                                                        \
    { .set = true, .min = (a), .max = INFINITY, .above_min = true }
#define BB_CLI_ABOVE_TO(a, b)                                                                                                  \
    { .set = true, .min = (a), .max = (b), .above_min = true }
#define BB_CLI_FROM_TO(a, b)                                                                                                   \
    { .set = true, .min = (a), .max = (b) }

/* What a saved configuration says about an option when a run is resumed. */
typedef enum bb_cli_saved {
    BB_CLI_SAVED_FIXED = 0, /* taken from it; giving another value is an error */
    BB_CLI_SAVED_FREE,      /* taken from it unless given */
    BB_CLI_SAVED_CALL       /* belongs to one call: written down, never taken */
} bb_cli_saved;

/* One row. The default is what `target` holds when parsing begins. A row without a name is a heading, its help the title. */
typedef struct bb_cli_option {
    const char *name; /* with underscores and no dashes in front; dashes inside are accepted too */
    bb_cli_type type;
    void *target;
    const char *value; /* what help calls the value, e.g. "N" */
    const char *help;
    bb_cli_range range;
    const char *const *choices; /* BB_CLI_CHOICE: names, NULL at the end */
    const char *default_text;   /* help says this as the default; "" says none */
    signed char position;       /* 1, 2, …: may be given without its name at this place; a list there takes all the rest */
    bool required;
    bool one_each; /* BB_CLI_LIST: takes one argument each time that it is given */
    bool given;    /* set by the parser */
    bb_cli_saved saved;
} bb_cli_option;

typedef struct bb_cli_command {
    const char *name, *summary, *usage; /* usage: what follows "bitbyte NAME " */
    bb_cli_option *options;             /* (option_count) */
    int option_count;
    const char *examples; /* printed after the options as it stands; may be NULL */
} bb_cli_command;

#define BB_CLI_COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* argv[0] is the command's name. Returns BB_CLI_GO_ON, or the exit status to end with: 0 after --help (on stdout), 2 after a
 * usage error (said on stderr). */
int bb_cli_parse(const bb_cli_command *command, int argc, char **argv);
void bb_cli_help(const bb_cli_command *command, FILE *out);
bool bb_cli_given(const bb_cli_command *command, const char *name);

/* Prints "bitbyte NAME: message" and where help is; returns BB_EXIT_USAGE. */
int bb_cli_usage_error(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints "bitbyte NAME: message" and returns the exit status for the code: an impossible argument is a usage error, every
 * other one a failure. */
int bb_cli_fail(const bb_cli_command *command, const bb_error *err);

/* The same for a failure in words; returns BB_EXIT_FAILURE. */
int bb_cli_failure(const bb_cli_command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From now on messages go to `held` instead of standard error; NULL: to standard error again. */
void bb_cli_hold(bb_error *held);

/* Every option's value as a JSON object, by name. NULL when out of memory. */
json_t *bb_cli_to_json(const bb_cli_command *command);
/* Fills the options from such an object as each row's `saved` says; options that it lacks stay as they are. `where` names it in
 * messages. Errors are said on stderr; returns BB_CLI_GO_ON or an exit status. */
int bb_cli_from_json(const bb_cli_command *command, const json_t *saved, const char *where);
/* JSON text whose numbers read back as they were; free() it. NULL when out of memory. */
char *bb_cli_json_text(json_t *json, size_t flags);

/* The name among `names` (NULL at the end) that `word` was likely meant to be, or NULL. */
const char *bb_cli_nearest(const char *word, const char *const *names);

#endif
