// SPDX-License-Identifier: MIT
/* "Did you mean": finds the name closest to a mistyped word. */
#include "cli_nearest.h"

#include <stddef.h>
#include <string.h>

enum { MAX_NAME = 64 };

static int min(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment distance: insertion, deletion, substitution and transposition cost 1 each. */
static int edit_distance(const char *a, const char *b) {
    int m = min((int)strlen(a), MAX_NAME), n = min((int)strlen(b), MAX_NAME);
    int row[3][MAX_NAME + 1];
    for (int j = 0; j <= n; j++) row[0][j] = j;
    for (int i = 1; i <= m; i++) {
        int *now = row[i % 3];
        const int *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= n; j++) {
            now[j] = min(min(last[j] + 1, now[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = min(now[j], before[j - 2] + 1);
        }
    }
    return row[m % 3][n];
}

const char *bb_cli_nearest(const char *word, const char *const *names) {
    const char *best = NULL;
    size_t length = strlen(word);
    int best_distance = 1 + min(4, 1 + (int)length / 3);
    for (int i = 0; names[i]; i++) {
        int distance = edit_distance(word, names[i]);
        /* A prefix of a name counts as close, whatever the length of the rest. */
        if (length >= 3 && strncmp(names[i], word, length) == 0) distance = min(distance, 1);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}
