// SPDX-License-Identifier: MIT
/* Converts option values from and to JSON. */
#ifndef BB_PROGRAMS_CLI_JSON_H
#define BB_PROGRAMS_CLI_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "cli_option.h"

/* All option values as a JSON object, by name. results: only those that affect results, without paths. NULL: out of memory. */
json_t *bb_cli_to_json(const bb_cli *cli, bool results);
/* Sets the options from such an object as each row's `saved` says; options missing in it are left unchanged.
 * where: names the object in messages. same_run: a different value for a fixed option is an error. *changes: malloc'd text with
 * "--lr 0.001 (was 0.003)" for each given option that differs; NULL if none. Strings are borrowed, so `saved` must outlive the
 * options; paths in it are unescaped in place (bb_path_from_text).
 * Prints errors on stderr. Returns BB_CLI_CONTINUE or an exit status. */
int bb_cli_from_json(const bb_cli *cli, json_t *saved, const char *where, bool same_run, char **changes);

#endif
