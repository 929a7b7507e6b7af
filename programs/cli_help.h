// SPDX-License-Identifier: MIT
/* Help text, manual page and completions, generated from a command's option table. */
#ifndef BB_PROGRAMS_CLI_HELP_H
#define BB_PROGRAMS_CLI_HELP_H

#include <stdio.h>

#include "cli_option.h"

/* Prints the help with the options' current values as defaults. */
void bb_cli_help(const bb_cli *cli, FILE *out);
/* --help=FORMAT. "man": a manual page in roff. "complete": for shell completions, a line for each option with tab-separated
 * fields: --name, what it takes (flag, file, value, or the choices separated by |), help. Returns false for an unknown
 * format. */
bool bb_cli_help_as(const bb_cli *cli, const char *format, FILE *out);
/* Prints text escaped for a manual page. */
void bb_cli_roff(const char *text, FILE *out);
/* Prints the beginning of a manual page, up to SYNOPSIS. title: in capitals. */
void bb_cli_man_head(const char *title, const char *name, const char *summary, FILE *out);

#endif
