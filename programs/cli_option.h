// SPDX-License-Identifier: MIT
/* The option table of a command, and a command line parsed with it. Parser, help, checks and JSON all use the table. */
#ifndef BB_PROGRAMS_CLI_OPTION_H
#define BB_PROGRAMS_CLI_OPTION_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

enum { BB_EXIT_OK = 0, BB_EXIT_FAILURE = 1, BB_EXIT_USAGE = 2, BB_EXIT_OUT_OF_TIME = 3, BB_CLI_CONTINUE = -1 };

typedef enum bb_cli_type {
    BB_CLI_FLAG,   /* bool: true when given, takes no value */
    BB_CLI_INT,    /* int */
    BB_CLI_INT64,  /* int64_t */
    BB_CLI_DOUBLE, /* double, finite */
    BB_CLI_STRING, /* const char *, points into argv */
    BB_CLI_CHOICE, /* int: index into `choices` */
    BB_CLI_LIST    /* bb_cli_list: every argument up to the next one that starts with "--" */
} bb_cli_type;

/* Items point into argv or to the default. The first use replaces the default; later uses append. */
typedef struct bb_cli_list {
    const char **items; /* (count) */
    int count;
} bb_cli_list;

typedef struct bb_cli_range {
    double min, max; /* INFINITY: no upper limit */
    bool set;        /* false: any value of the type */
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

/* How resuming a run treats a saved option. */
typedef enum bb_cli_saved {
    BB_CLI_SAVED_FIXED = 0, /* always the saved value; any other is an error */
    BB_CLI_SAVED_FUTURE,    /* the saved value unless given; affects the remaining steps */
    BB_CLI_SAVED_FREE,      /* the saved value unless given; does not change results */
    BB_CLI_SAVED_CALL       /* recorded, but never restored */
} bb_cli_saved;

/* One row. It sets the field at `offset` of the command's argument struct; the field's initial value is the default.
 * A row without a name is a heading (`help` is its title), or stands for all rows of `group`. */
typedef struct bb_cli_option {
    const char *name; /* with underscores, without leading dashes; users may type - for _ */
    bb_cli_type type;
    int listed_choices; /* how many choices help and messages list; 0: all */
    size_t offset;
    const struct bb_cli_group *group; /* shared rows, for the struct at `offset` */
    const char *value;                /* name of the value in help, e.g. "N" */
    const char *help;
    bb_cli_range range;
    const char *const *choices; /* BB_CLI_CHOICE: names, NULL-terminated */
    const char *default_text;   /* default shown in help; "": none */
    char letter; /* also accepted as -x (flags combine, a value may follow directly); '#': accepted as -N, a number; 0: none */
    signed char position; /* 1, 2, …: also accepted as this positional argument; a list takes all remaining ones */
    bool required;
    bool one_each; /* BB_CLI_LIST: takes one argument per use */
    bool path;     /* BB_CLI_STRING: names files, which may lie elsewhere when the results are the same */
    bb_cli_saved saved;
} bb_cli_option;

typedef struct bb_cli_group {
    const bb_cli_option *options; /* (count) */
    int count;
} bb_cli_group;

typedef struct bb_cli_command {
    const char *name, *summary, *usage; /* usage: the text after "bitbyte NAME " */
    const bb_cli_option *options;       /* (option_count) */
    int option_count;
    const char *examples; /* printed verbatim after the options; may be NULL */
} bb_cli_command;

#define BB_CLI_COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

enum { BB_CLI_MAX_ROWS = 128 };

typedef struct bb_cli_row {
    const bb_cli_option *option; /* never a group */
    void *target;                /* the field it sets */
    bool given;
} bb_cli_row;

/* A parsed command line: the rows of a command with groups expanded, and which were given. */
typedef struct bb_cli {
    const bb_cli_command *command;
    bb_cli_row rows[BB_CLI_MAX_ROWS];
    int row_count;
} bb_cli;

#endif
