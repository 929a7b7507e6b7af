// SPDX-License-Identifier: MIT
/* Functions of double that give the same bits on every machine, unlike those of a C library: only sums, products and divisions,
 * in a fixed order. Errors are a few units in the last place. */
#ifndef BB_CORE_EXACT_MATH_H
#define BB_CORE_EXACT_MATH_H

double bb_exp(double x);
/* -INFINITY for 0, NaN below. */
double bb_log(double x);
/* log(1 + x), also for small x. */
double bb_log1p(double x);
/* x > 0 */
double bb_pow(double x, double y);
/* 0 <= angle < 2^24; to 10^-16. */
void bb_cos_sin(double angle, double *cos, double *sin);

#endif
