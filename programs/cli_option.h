// SPDX-License-Identifier: MIT
/* The rows of a command's table of options, and a command line that is read by it: what the parser, the help, the checks and the
 * JSON of every command are made from. */
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
    BB_CLI_SAVED_FIXED = 0, /* taken from it; the run cannot go on with another value */
    BB_CLI_SAVED_FUTURE,    /* taken from it unless given; decides what the steps to come compute */
    BB_CLI_SAVED_FREE,      /* taken from it unless given; changes no result */
    BB_CLI_SAVED_CALL       /* belongs to one call: written down, never taken */
} bb_cli_saved;

/* One row. It fills the field at `offset` of the command's argument struct, whose value when parsing begins is the default.
 * A row without a name is a heading, its help the title, or stands for all rows of `group`. */
typedef struct bb_cli_option {
    const char *name; /* with underscores and no dashes in front; dashes inside are accepted too */
    bb_cli_type type;
    size_t offset;
    const struct bb_cli_group *group; /* rows for the struct at `offset` that several commands have */
    const char *value;                /* what help calls the value, e.g. "N" */
    const char *help;
    bb_cli_range range;
    const char *const *choices; /* BB_CLI_CHOICE: names, NULL at the end */
    const char *default_text;   /* help says this as the default; "" says none */
    signed char position;       /* 1, 2, …: may be given without its name at this place; a list there takes all the rest */
    bool required;
    bool one_each; /* BB_CLI_LIST: takes one argument each time that it is given */
    bb_cli_saved saved;
} bb_cli_option;

typedef struct bb_cli_group {
    const bb_cli_option *options; /* (count) */
    int count;
} bb_cli_group;

typedef struct bb_cli_command {
    const char *name, *summary, *usage; /* usage: what follows "bitbyte NAME " */
    const bb_cli_option *options;       /* (option_count) */
    int option_count;
    const char *examples; /* printed after the options as it stands; may be NULL */
} bb_cli_command;

#define BB_CLI_COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

enum { BB_CLI_MAX_ROWS = 128 };

typedef struct bb_cli_row {
    const bb_cli_option *option; /* never a group */
    void *target;                /* its field */
    bool given;
} bb_cli_row;

/* One command line: the rows of a command, groups written out, and which of them were given. */
typedef struct bb_cli {
    const bb_cli_command *command;
    bb_cli_row rows[BB_CLI_MAX_ROWS];
    int row_count;
} bb_cli;

#endif
