// SPDX-License-Identifier: MIT
#include "core/cpu_features.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const char *const names[] = {"generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "avx512_amx"};

const char *bb_cpu_level_name(bb_cpu_level level) { return names[level]; }

#if defined(__x86_64__)
/* Whether CPUID reports tiles with int8 and bf16, and the system lets this process use them. Linux saves the tile registers
 * (XCR0) only for processes that have requested it. This requests it, for all threads. */
static bool may_use_amx(void) {
#ifdef __linux__
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
    const unsigned bits = 1u << 22 | 1u << 24 | 1u << 25, osxsave = 1u << 27, tile_state = 3u << 17;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & bits) != bits) return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & tile_state) == tile_state && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

static bb_cpu_level of_processor(void) {
#if defined(__x86_64__)
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return BB_CPU_GENERIC;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return BB_CPU_AVX2;
    if (!__builtin_cpu_supports("avx512vnni")) return BB_CPU_AVX512;
    if (!__builtin_cpu_supports("avx512bf16")) return BB_CPU_AVX512_VNNI;
    return may_use_amx() ? BB_CPU_AVX512_AMX : BB_CPU_AVX512_BF16;
#else
    return BB_CPU_GENERIC;
#endif
}

bb_status bb_cpu_lower(bb_cpu_level processor, const char *wanted, bb_cpu_level *out, bb_error *err) {
    *out = processor;
    if (!wanted || !*wanted) return BB_OK;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(wanted, names[i])) continue;
        if (i > (int)processor)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "BITBYTE_CPU asks for %s; this processor has no more than %s", wanted,
                           names[processor]);
        *out = (bb_cpu_level)i;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "BITBYTE_CPU is \"%s\"; it may be generic, avx2, avx512, avx512_vnni, avx512_bf16 or avx512_amx, or not set",
                   wanted);
}

bb_status bb_cpu_detect(bb_cpu_level *out, bb_error *err) {
    return bb_cpu_lower(of_processor(), getenv("BITBYTE_CPU"), out, err);
}

typedef struct feature {
    const char *name;
    bool there;
} feature;

/* Writes the names of the features that are present, after `base`, which every processor of the architecture has. */
static void list_features(char *out, size_t size, const char *base, const feature *features, size_t count) {
    size_t n = (size_t)snprintf(out, size, "%s", base);
    for (size_t i = 0; i < count && n < size; i++)
        if (features[i].there) n += (size_t)snprintf(out + n, size - n, " %s", features[i].name);
}

#if defined(__x86_64__)
/* AVX and AVX-512 are usable if the system saves their registers too. __builtin_cpu_supports checks that, CPUID does not. */
void bb_cpu_features(char *out, size_t size) {
    unsigned a, b, c = 0, d = 0, leaf1_c = 0, leaf7_d = 0, leaf7_1_a = 0;
    if (__get_cpuid(1, &a, &b, &c, &d)) leaf1_c = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        leaf7_d = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) leaf7_1_a = a;
    }
    bool avx = __builtin_cpu_supports("avx"), avx512 = __builtin_cpu_supports("avx512f");
    const feature features[] = {{"sse4_1", __builtin_cpu_supports("sse4.1")},
                                {"avx", avx},
                                {"avx2", __builtin_cpu_supports("avx2")},
                                {"fma", __builtin_cpu_supports("fma")},
                                {"f16c", avx && (leaf1_c >> 29 & 1)},
                                {"avx_vnni", avx && (leaf7_1_a >> 4 & 1)},
                                {"avx512f", avx512},
                                {"avx512bw", __builtin_cpu_supports("avx512bw")},
                                {"avx512dq", __builtin_cpu_supports("avx512dq")},
                                {"avx512vl", __builtin_cpu_supports("avx512vl")},
                                {"avx512_vnni", __builtin_cpu_supports("avx512vnni")},
                                {"avx512_bf16", __builtin_cpu_supports("avx512bf16")},
                                {"amx_bf16", avx512 && (leaf7_d >> 22 & 1)},
                                {"amx_int8", avx512 && (leaf7_d >> 25 & 1)}};
    list_features(out, size, "sse2", features, sizeof features / sizeof *features);
}
#elif defined(__aarch64__)
void bb_cpu_features(char *out, size_t size) {
    unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    const feature features[] = {{"fp16", one & HWCAP_ASIMDHP}, {"dotprod", one & HWCAP_ASIMDDP}, {"sve", one & HWCAP_SVE},
                                {"sve2", two & HWCAP2_SVE2},   {"i8mm", two & HWCAP2_I8MM},      {"bf16", two & HWCAP2_BF16}};
    list_features(out, size, "neon", features, sizeof features / sizeof *features);
}
#else
void bb_cpu_features(char *out, size_t size) { list_features(out, size, "none that is known", NULL, 0); }
#endif
