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

#if defined(__x86_64__)
enum {
    AVX512 = BB_CPU_AVX2 | BB_CPU_AVX512,
    AVX512_VNNI = AVX512 | BB_CPU_AVX512_VNNI,
    AVX512_BF16 = AVX512_VNNI | BB_CPU_AVX512_BF16,
    PERMUTE_BYTES = BB_CPU_AVX512_VBMI | BB_CPU_FAST_PERMUTE_BYTES
};
#endif

const bb_cpu_set bb_cpu_sets[BB_CPU_SETS] = {{"generic", 0, 0}, /* plain C */
#if defined(__x86_64__)
                                             {"avx2", BB_CPU_AVX2, 0},
                                             {"avx_vnni", BB_CPU_AVX2 | BB_CPU_AVX_VNNI, 0},
                                             {"avx512", AVX512, 0},
                                             {"avx512_vnni", AVX512_VNNI, PERMUTE_BYTES},
                                             /* Zen 4, Cooper Lake and later */
                                             {"avx512_bf16", AVX512_BF16, PERMUTE_BYTES},
                                             /* Sapphire Rapids and later */
                                             {"avx512_amx", AVX512_BF16 | BB_CPU_AMX, PERMUTE_BYTES}
#elif defined(__aarch64__)
                                             {"neon_dotprod", BB_CPU_NEON_DOTPROD, 0},
                                             /* Neoverse V1, Apple M2 and later */
                                             {"neon_i8mm", BB_CPU_NEON_DOTPROD | BB_CPU_NEON_I8MM, 0}
#endif
};

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

unsigned bb_cpu_processor_features(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d, bits = 0;
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 0;
    bits |= BB_CPU_AVX2;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1)
        bits |= BB_CPU_AVX_VNNI;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return bits;
    bits |= BB_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) bits |= BB_CPU_AVX512_VNNI;
    if (__builtin_cpu_supports("avx512vbmi")) bits |= BB_CPU_AVX512_VBMI;
    if (__builtin_cpu_supports("avx512bf16")) bits |= BB_CPU_AVX512_BF16;
    if (may_use_amx()) bits |= BB_CPU_AMX;
    if (__builtin_cpu_is("amd")) bits |= BB_CPU_FAST_PERMUTE_BYTES;
    return bits;
#elif defined(__aarch64__)
    unsigned bits = getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? BB_CPU_NEON_DOTPROD : 0;
    return bits && getauxval(AT_HWCAP2) & HWCAP2_I8MM ? bits | BB_CPU_NEON_I8MM : bits;
#else
    return 0;
#endif
}

static bool has_all(unsigned features, unsigned required) { return (features & required) == required; }

static const bb_cpu_set *best_set(unsigned features) {
    const bb_cpu_set *best = bb_cpu_sets;
    for (int i = 1; i < BB_CPU_SETS; i++)
        if (has_all(features, bb_cpu_sets[i].features)) best = &bb_cpu_sets[i];
    return best;
}

static const bb_cpu_set *find_set(const char *name) {
    for (int i = 0; i < BB_CPU_SETS; i++)
        if (strcmp(name, bb_cpu_sets[i].name) == 0) return &bb_cpu_sets[i];
    return NULL;
}

static bb_status fail_unknown(const char *wanted, bb_error *err) {
    char names[128] = "";
    size_t n = 0;
    for (int i = 0; i < BB_CPU_SETS && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i == 0 ? "" : ", ", bb_cpu_sets[i].name);
    return bb_fail(err, BB_ERR_ARGUMENT, "BITBYTE_CPU is \"%s\"; it may be one of %s, or not set", wanted, names);
}

bb_status bb_cpu_choose(unsigned features, const char *wanted, bb_cpu_choice *out, bb_error *err) {
    const bb_cpu_set *best = best_set(features), *set = wanted && *wanted ? find_set(wanted) : best;
    if (!set) return fail_unknown(wanted, err);
    if (!has_all(features, set->features))
        return bb_fail(err, BB_ERR_UNSUPPORTED, "BITBYTE_CPU asks for %s; the best set that this processor has is %s", wanted,
                       best->name);
    *out = (bb_cpu_choice){set, set->features | (features & set->optional), set != best};
    return BB_OK;
}

bb_status bb_cpu_detect(bb_cpu_choice *out, bb_error *err) {
    return bb_cpu_choose(bb_cpu_processor_features(), getenv("BITBYTE_CPU"), out, err);
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
