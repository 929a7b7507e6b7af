// SPDX-License-Identifier: MIT
/* CUDA C++ on the CPU, for tests: included ahead of a kernel file that is compiled as C++. See the three files. */
#ifndef BB_TESTS_CUDA_EMULATION_CUDA_H
#define BB_TESTS_CUDA_EMULATION_CUDA_H

#include "emulation/runtime.h"
#include "emulation/threads.h"
#include "emulation/wmma.h"

#endif
