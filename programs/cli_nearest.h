// SPDX-License-Identifier: MIT
/* "Did you mean": the name that a mistyped word is closest to. */
#ifndef BB_PROGRAMS_CLI_NEAREST_H
#define BB_PROGRAMS_CLI_NEAREST_H

/* The name among `names` (NULL at the end) that `word` was likely meant to be, or NULL. */
const char *bb_cli_nearest(const char *word, const char *const *names);

#endif
