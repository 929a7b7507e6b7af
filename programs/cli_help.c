// SPDX-License-Identifier: MIT
/* Help text, generated from a command's option table. */
#include "cli_help.h"

#include <string.h>

#include "cli_value.h"

enum { WIDTH = 100, COLUMN = 28 };

/* Prints `text` from the current column, wrapped at `indent`. Returns the last column. */
static int wrap(FILE *out, const char *text, int column, int indent) {
    bool line_start = true;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (!line_start && column + 1 + length > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            line_start = true;
        }
        column += fprintf(out, "%s%.*s", line_start ? "" : " ", length, text);
        line_start = false;
        text += length;
        text += strspn(text, " ");
    }
    return column;
}

static void option_help(const bb_cli_row *row, FILE *out) {
    const bb_cli_option *option = row->option;
    int column = fprintf(out, "  ");
    if (option->letter) column += fprintf(out, option->letter == '#' ? "-N, " : "-%c, ", option->letter);
    column += fprintf(out, "--%s", option->name);
    if (option->choices) {
        for (int i = 0; option->choices[i]; i++) column += fprintf(out, "%s%s", i ? "|" : " ", option->choices[i]);
    } else if (option->value) {
        column += fprintf(out, " %s", option->value);
    }
    if (column > COLUMN - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", COLUMN - column, "");
    char text[2048], value[256];
    bb_cli_value_text(row, value, sizeof value);
    const char *shown = option->default_text ? option->default_text : value;
    if (option->type == BB_CLI_FLAG || shown[0] == '\0')
        snprintf(text, sizeof text, "%s%s", option->help, option->required ? " (required)" : "");
    else
        snprintf(text, sizeof text, "%s (default %s)", option->help, shown);
    wrap(out, text, COLUMN, COLUMN);
    fputc('\n', out);
}

void bb_cli_help(const bb_cli *cli, FILE *out) {
    const bb_cli_command *command = cli->command;
    fprintf(out, "bitbyte %s: ", command->name);
    wrap(out, command->summary, 10 + (int)strlen(command->name), 0);
    fprintf(out, "\n\nUsage: bitbyte %s %s\n", command->name, command->usage);
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_row *row = &cli->rows[i];
        if (row->option->name)
            option_help(row, out);
        else
            fprintf(out, "\n%s\n", row->option->help);
    }
    if (command->examples) fprintf(out, "\nExamples\n%s", command->examples);
    fprintf(out, "\nOptions may be written with _ or -, and as '--option value' or '--option=value'.\n");
}
