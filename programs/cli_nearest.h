// SPDX-License-Identifier: MIT
/* "Did you mean": finds the name closest to a mistyped word. */
#ifndef BB_PROGRAMS_CLI_NEAREST_H
#define BB_PROGRAMS_CLI_NEAREST_H

/* Returns the name in `names` (NULL-terminated) that `word` probably means, or NULL. */
const char *bb_cli_nearest(const char *word, const char *const *names);

#endif
