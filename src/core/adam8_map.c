/* SPDX-License-Identifier: MIT */
#include "core/adam8_map.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { ENTRIES = 256, DECADES = 7 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static float maps[2][ENTRIES], edges[2][ENTRIES - 1]; /* [is_signed] */

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fill(float *map, float *edge, bool is_signed) {
    int n = 0;
    double decade = 1e6; /* a divisor: powers of ten are exact, their inverses are not */
    for (int e = 0; e < DECADES; e++, decade /= 10) {
        int parts = 1 << (is_signed ? e : e + 1);
        for (int i = 0; i < parts; i++) {
            float value = (float)((0.1 + 0.9 * (i + 0.5) / parts) / decade);
            map[n++] = value;
            if (is_signed) map[n++] = -value;
        }
    }
    map[n++] = 0.0f;
    map[n++] = 1.0f;
    qsort(map, (size_t)n, sizeof *map, by_value);

    for (int i = 0; i + 1 < n; i++) {
        double middle = ((double)map[i] + (double)map[i + 1]) / 2; /* exact: both have 24 bits, within 24 binades */
        edge[i] = (float)middle;
        if ((double)edge[i] > middle) edge[i] = nextafterf(edge[i], -INFINITY);
    }
}

static void fill_all(void) {
    for (int s = 0; s < 2; s++) fill(maps[s], edges[s], s == 1);
}

const float *bb_adam8_map(bool is_signed) {
    pthread_once(&once, fill_all);
    return maps[is_signed];
}

const float *bb_adam8_edges(bool is_signed) {
    pthread_once(&once, fill_all);
    return edges[is_signed];
}
