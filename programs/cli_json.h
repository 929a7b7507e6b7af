// SPDX-License-Identifier: MIT
/* Values of options from and to JSON. */
#ifndef BB_PROGRAMS_CLI_JSON_H
#define BB_PROGRAMS_CLI_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "cli_option.h"

/* Every option's value as a JSON object, by name; `results`: only those that decide what is computed, and no paths. NULL when
 * out of memory. */
json_t *bb_cli_to_json(const bb_cli *cli, bool results);
/* Fills the options from such an object as each row's `saved` says; options that it lacks stay as they are. `where` names it in
 * messages. `same_run`: another value for a fixed option is an error. *changes: malloc'd text that gets "--lr 0.001 (was 0.003)"
 * for each option that was given and differs; NULL where none does. Strings are borrowed: `saved` must outlive the options; paths in it get the bytes back that
 * bb_path_text escapes.
 * Errors are said on stderr; returns BB_CLI_CONTINUE or an exit status. */
int bb_cli_from_json(const bb_cli *cli, json_t *saved, const char *where, bool same_run, char **changes);

#endif
