// SPDX-License-Identifier: MIT
/* Help text, generated from a command's option table. */
#include "cli_help.h"

#include <ctype.h>
#include <string.h>

#include "bitbyte.h"
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

/* Writes what an option does, and its default. */
static void option_text(const bb_cli_row *row, char *text, size_t size) {
    const bb_cli_option *option = row->option;
    char value[256];
    bb_cli_value_text(row, value, sizeof value);
    const char *shown = option->default_text ? option->default_text : value;
    if (option->type == BB_CLI_FLAG || shown[0] == '\0')
        snprintf(text, size, "%s%s", option->help, option->required ? " (required)" : "");
    else
        snprintf(text, size, "%s (default %s)", option->help, shown);
}

static void option_help(const bb_cli_row *row, FILE *out) {
    const bb_cli_option *option = row->option;
    int column = fprintf(out, "  ");
    if (option->letter) column += fprintf(out, option->letter == '#' ? "-N, " : "-%c, ", option->letter);
    column += fprintf(out, "--%s", option->name);
    if (option->choices) {
        for (int i = 0; bb_cli_lists_choice(option, i); i++) column += fprintf(out, "%s%s", i ? "|" : " ", option->choices[i]);
    } else if (option->value) {
        column += fprintf(out, " %s", option->value);
    }
    if (column > COLUMN - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", COLUMN - column, "");
    char text[2048];
    option_text(row, text, sizeof text);
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

/* ---- manual pages ------------------------------------------------------------------------------------------------------- */

void bb_cli_roff(const char *text, FILE *out) {
    bool line_start = true;
    for (const char *c = text; *c; c++) {
        if (line_start && (*c == '.' || *c == '\'')) fputs("\\&", out);
        if (*c == '\\')
            fputs("\\e", out);
        else if (*c == '-')
            fputs("\\-", out);
        else
            fputc(*c, out);
        line_start = *c == '\n';
    }
}

void bb_cli_man_head(const char *title, const char *name, const char *summary, FILE *out) {
    fprintf(out, ".TH \"%s\" 1 \"\" \"bitbyte %s\" \"BitByte\"\n.SH NAME\n", title, bb_version());
    bb_cli_roff(name, out);
    fputs(" \\- ", out);
    bb_cli_roff(summary, out);
    fputs("\n.SH SYNOPSIS\n", out);
}

static void man_option(const bb_cli_row *row, FILE *out) {
    const bb_cli_option *option = row->option;
    char text[2048];
    fputs(".TP\n\\fB", out);
    if (option->letter) fprintf(out, option->letter == '#' ? "\\-N\\fR, \\fB" : "\\-%c\\fR, \\fB", option->letter);
    bb_cli_roff("--", out);
    bb_cli_roff(option->name, out);
    fputs("\\fR", out);
    for (int i = 0; option->choices && option->choices[i]; i++) {
        fputs(i ? "|" : " ", out);
        bb_cli_roff(option->choices[i], out);
    }
    if (!option->choices && option->value) {
        fputs(" \\fI", out);
        bb_cli_roff(option->value, out);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    option_text(row, text, sizeof text);
    bb_cli_roff(text, out);
    fputc('\n', out);
}

static void man_page(const bb_cli *cli, FILE *out) {
    const bb_cli_command *command = cli->command;
    char title[64], name[64];
    snprintf(name, sizeof name, "bitbyte-%s", command->name);
    snprintf(title, sizeof title, "%s", name);
    for (char *c = title; *c; c++) *c = (char)toupper((unsigned char)*c);
    /* the first sentence, without its period */
    char summary[512];
    const char *stop = strstr(command->summary, ". ");
    snprintf(summary, sizeof summary, "%.*s", stop ? (int)(stop - command->summary) : (int)strcspn(command->summary, "."),
             command->summary);
    bb_cli_man_head(title, name, summary, out);
    fprintf(out, ".B bitbyte %s\n", command->name);
    bb_cli_roff(command->usage, out);
    fputs("\n.SH DESCRIPTION\n", out);
    bb_cli_roff(command->summary, out);
    fputs("\n.SH OPTIONS\nOptions may be written with _ or \\-, and as \\-\\-option value or \\-\\-option=value.\n", out);
    for (int i = 0; i < cli->row_count; i++) {
        const bb_cli_row *row = &cli->rows[i];
        if (row->option->name) {
            man_option(row, out);
            continue;
        }
        fputs(".SS ", out);
        bb_cli_roff(row->option->help, out);
        fputc('\n', out);
    }
    if (command->examples) {
        fputs(".SH EXAMPLES\n.nf\n", out);
        bb_cli_roff(command->examples, out);
        fputs(".fi\n", out);
    }
    fputs(".SH SEE ALSO\n.BR bitbyte (1)\n", out);
}

/* ---- completions -------------------------------------------------------------------------------------------------------- */

static void complete_option(const bb_cli_option *option, FILE *out) {
    static const char *const files[] = {"FILE", "DIR", "PATH", "MODEL", "RUN", "GLOB", "DATA", "IN", "OUT"};
    fprintf(out, "--%s\t", option->name);
    bool file = false;
    for (size_t i = 0; i < sizeof files / sizeof *files && option->value && !option->range.set; i++)
        file |= strstr(option->value, files[i]) != NULL;
    if (option->type == BB_CLI_FLAG)
        fputs("flag", out);
    else if (!option->choices)
        fputs(file ? "file" : "value", out);
    for (int i = 0; option->choices && option->choices[i]; i++) fprintf(out, "%s%s", i ? "|" : "", option->choices[i]);
    /* a colon would end the word in zsh */
    int length = (int)strcspn(option->help, ".;:(");
    fprintf(out, "\t%.*s\n", length, option->help);
}

bool bb_cli_help_as(const bb_cli *cli, const char *format, FILE *out) {
    if (strcmp(format, "man") == 0) {
        man_page(cli, out);
        return true;
    }
    if (strcmp(format, "complete") != 0) return false;
    for (int i = 0; i < cli->row_count; i++)
        if (cli->rows[i].option->name) complete_option(cli->rows[i].option, out);
    return true;
}
