// SPDX-License-Identifier: MIT
#ifndef BB_OPS_CPU_KERNELS_H
#define BB_OPS_CPU_KERNELS_H

#include "ops/cpu/device/kernel_set.h"

/* The kernels for a processor of this level: its row of the table, completed from the rows below. */
bb_cpu_kernels bb_cpu_kernels_for(bb_cpu_level level);

#endif
