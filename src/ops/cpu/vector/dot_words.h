// SPDX-License-Identifier: MIT
/* sum += the dot products of the 32-bit words of two vectors; sum is a variable. In assembler: GCC 12 copies the sums around the
 * intrinsics. With BB_SIMDE, which tests/simde defines, the intrinsics. */
#ifndef BB_OPS_CPU_DOT_WORDS_H
#define BB_OPS_CPU_DOT_WORDS_H

#ifdef BB_SIMDE
#define BB_DOT_WORDS(instruction, registers, intrinsic, sum, a, b) ((sum) = (__typeof__(sum))intrinsic)
#else
#define BB_DOT_WORDS(instruction, registers, intrinsic, sum, a, b)                                                             \
    __asm__(instruction " %2, %1, %0" : "+" registers(sum) : registers(a), registers(b))
#endif

/* Four bytes each: u unsigned, s signed. AVX-512 VNNI; 256 bits: AVX-VNNI */
#define BB_DOT_BYTES_512(sum, u, s) BB_DOT_WORDS("vpdpbusd", "v", _mm512_dpbusd_epi32(sum, u, s), sum, u, s)
#define BB_DOT_BYTES_256(sum, u, s) BB_DOT_WORDS("%{vex%} vpdpbusd", "x", _mm256_dpbusd_epi32(sum, u, s), sum, u, s)

/* Two int16 each. AVX-512 VNNI; 256 bits: AVX-VNNI */
#define BB_DOT_PAIRS_512(sum, a, b) BB_DOT_WORDS("vpdpwssd", "v", _mm512_dpwssd_epi32(sum, b, a), sum, b, a)
#define BB_DOT_PAIRS_256(sum, a, b) BB_DOT_WORDS("%{vex%} vpdpwssd", "x", _mm256_dpwssd_epi32(sum, b, a), sum, b, a)

/* Two bf16 each, with sums in f32. AVX-512 BF16 */
#define BB_DOT_BF16_512(sum, a, b)                                                                                             \
    BB_DOT_WORDS("vdpbf16ps", "v", _mm512_dpbf16_ps((__m512)(sum), (__m512bh)(a), (__m512bh)(b)), sum, a, b)

#endif
