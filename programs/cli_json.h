// SPDX-License-Identifier: MIT
/* Converts option values from and to JSON. */
#ifndef BB_PROGRAMS_CLI_JSON_H
#define BB_PROGRAMS_CLI_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "cli_option.h"

/* Returns all option values as a JSON object, by name, or NULL if out of memory. results: only those that affect results,
 * without paths. */
json_t *bb_cli_to_json(const bb_cli *cli, bool results);
/* Sets the options from such an object as each row's `saved` says; options missing in it are left unchanged. where: name of the
 * object in messages. same_run: a different value for a fixed option is an error. *changes: malloc'd text such as "--lr 0.001
 * (was 0.003)" with each given option that differs; NULL if none. Options point to strings of `saved`, which must outlive them;
 * its paths are unescaped in place (bb_path_from_text). Prints errors on stderr. Returns BB_CLI_CONTINUE or an exit status. */
int bb_cli_from_json(const bb_cli *cli, json_t *saved, const char *where, bool same_run, char **changes);

#endif
