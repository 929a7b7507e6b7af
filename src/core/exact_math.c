// SPDX-License-Identifier: MIT
#include "core/exact_math.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* log 2 and pi/2 in parts: the first ones have so few bits that a product with a whole number below 2^24 is exact. */
static const double ln2_high = 0x1.62e42fep-1, ln2_low = 0x1.f473de6af278fp-30;
static const double half_pi[] = {0x1.921fb54p+0, 0x1.10b461p-30, 0x1.a62633145c06ep-58};

static double power_of_2(int n) {
    uint64_t bits = (uint64_t)(1023 + n) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^(i/32) */
static const double roots[32] = {0x1p+0,
                                 0x1.059b0d3158574p+0,
                                 0x1.0b5586cf9890fp+0,
                                 0x1.11301d0125b51p+0,
                                 0x1.172b83c7d517bp+0,
                                 0x1.1d4873168b9aap+0,
                                 0x1.2387a6e756238p+0,
                                 0x1.29e9df51fdee1p+0,
                                 0x1.306fe0a31b715p+0,
                                 0x1.371a7373aa9cbp+0,
                                 0x1.3dea64c123422p+0,
                                 0x1.44e086061892dp+0,
                                 0x1.4bfdad5362a27p+0,
                                 0x1.5342b569d4f82p+0,
                                 0x1.5ab07dd485429p+0,
                                 0x1.6247eb03a5585p+0,
                                 0x1.6a09e667f3bcdp+0,
                                 0x1.71f75e8ec5f74p+0,
                                 0x1.7a11473eb0187p+0,
                                 0x1.82589994cce13p+0,
                                 0x1.8ace5422aa0dbp+0,
                                 0x1.93737b0cdc5e5p+0,
                                 0x1.9c49182a3f09p+0,
                                 0x1.a5503b23e255dp+0,
                                 0x1.ae89f995ad3adp+0,
                                 0x1.b7f76f2fb5e47p+0,
                                 0x1.c199bdd85529cp+0,
                                 0x1.cb720dcef9069p+0,
                                 0x1.d5818dcfba487p+0,
                                 0x1.dfc97337b9b5fp+0,
                                 0x1.ea4afa2a490dap+0,
                                 0x1.f50765b6e454p+0};

/* x = (32 n + i) log 2 / 32 + r, |r| < 0.011: 2^n 2^(i/32) e^r, the last by Taylor. */
double bb_exp(double x) {
    if (!(x < 709)) return x > 709.78 ? (double)INFINITY : x >= 709 ? 2 * bb_exp(x - 0x1.62e42fefa39efp-1) : x;
    if (x < -708) return x < -745.2 ? 0 : bb_exp(x + 100) * 3.720075976020836e-44;
    double k = floor(x * (32 * 1.4426950408889634) + 0.5), r = (x - k * 0x1.62e42feep-6) - k * 0x1.a39ef35793c76p-38;
    int64_t whole = (int64_t)k;
    double p = r + r * r * (0.5 + r * (1.0 / 6 + r * (1.0 / 24 + r * (1.0 / 120 + r * (1.0 / 720)))));
    double root = roots[whole & 31];
    return (root + root * p) * power_of_2((int)(whole >> 5));
}

double bb_log(double x) {
    int n;
    if (!(x > 0)) return x < 0 ? (double)NAN : x == 0 ? -(double)INFINITY : x;
    if (isinf(x)) return x;
    double m = frexp(x, &n);
    if (m < 0x1.6a09e667f3bcdp-1) { /* from sqrt(1/2) to sqrt(2) */
        m *= 2;
        n--;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0; /* log m = 2 atanh s, |s| < 0.172 */
    for (int k = 23; k > 1; k -= 2) sum = (sum + 1.0 / k) * s2;
    return n * ln2_high + (2 * s * (1 + sum) + n * ln2_low);
}

/* W. Kahan: the rounding of 1 + x and the logarithm's response to it cancel. */
double bb_log1p(double x) {
    double u = 1 + x;
    if (u - 1 == 0) return x;
    return isinf(u) || u <= 0 ? bb_log(u) : bb_log(u) * (x / (u - 1));
}

double bb_pow(double x, double y) { return bb_exp(y * bb_log(x)); }

void bb_cos_sin(double angle, double *cos, double *sin) {
    double n = floor(angle * 0.63661977236758134 + 0.5), r = ((angle - n * half_pi[0]) - n * half_pi[1]) - n * half_pi[2];
    double r2 = r * r, c = 1, s = 1;
    for (int k = 9; k > 0; k--) { /* Taylor, |r| < 0.79 */
        c = 1 - c * r2 / (double)((2 * k - 1) * (2 * k));
        s = 1 - s * r2 / (double)((2 * k) * (2 * k + 1));
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0: *cos = c, *sin = s; break;
    case 1: *cos = -s, *sin = c; break;
    case 2: *cos = -c, *sin = -s; break;
    default: *cos = s, *sin = -c; break;
    }
}
