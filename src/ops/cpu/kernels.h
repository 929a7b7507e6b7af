// SPDX-License-Identifier: MIT
#ifndef BB_OPS_CPU_KERNELS_H
#define BB_OPS_CPU_KERNELS_H

#include "ops/cpu/device/kernel_set.h"

/* The kernels for a processor with these features (core/cpu_features.h). */
bb_cpu_kernels bb_cpu_kernels_for(unsigned features);

#endif
