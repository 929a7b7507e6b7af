// SPDX-License-Identifier: MIT
/* Dot products of int8 rows with a panel of a ternary matrix (ternary.h): exact integers, one kernel per instruction set. */
#ifndef BB_OPS_CPU_TERNARY_DOT_H
#define BB_OPS_CPU_TERNARY_DOT_H

#include "ops/cpu/linear/ternary.h"

/* From this many rows on, a run of the panel is expanded once for all of them, rather than in registers for each tile. */
enum { BB_TERNARY_DOT_EXPAND_ROWS = 16, BB_TERNARY_DOT_RUN = 16 /* blocks */ };

bb_ternary_dot bb_ternary_dot_generic;
#if defined(__x86_64__)
bb_ternary_dot bb_ternary_dot_avx2;
bb_ternary_dot bb_ternary_dot_vnni;  /* AVX-512 with VNNI */
bb_ternary_dot bb_ternary_dot_dense; /* ternary_dense.c; VBMI too */
bb_ternary_dot bb_ternary_dot_amx;
#elif defined(__aarch64__)
bb_ternary_dot bb_ternary_dot_neon_dotprod, bb_ternary_dot_neon_i8mm;
#endif

#endif
