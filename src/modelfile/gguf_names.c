// SPDX-License-Identifier: MIT
/* Type numbers and the vocabulary of GGUF files. */
#include "modelfile/gguf_names.h"

static const struct {
    bb_file_dtype type;
    int number;
} types[] = {{BB_FILE_F32, 0},    {BB_FILE_F16, 1},    {BB_FILE_Q8_0, 8}, {BB_FILE_I8, 24},
             {BB_FILE_I32, 26},   {BB_FILE_I64, 27},   {BB_FILE_F64, 28}, {BB_FILE_BF16, 30},
             {BB_FILE_TQ1_0, 34}, {BB_FILE_TQ2_0, 35}, {BB_FILE_Q2_0, 42}};

int bb_gguf_type_number(bb_file_dtype type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type) return types[i].number;
    return -1;
}

bool bb_gguf_type_of(uint32_t number, bb_file_dtype *out) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint32_t)types[i].number == number) {
            *out = types[i].type;
            return true;
        }
    return false;
}

static bool is_printable(int byte) { return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad); }

bb_gguf_token bb_gguf_byte_token(int byte) {
    int code = byte;
    if (!is_printable(byte)) { /* bytes that are not printable become U+0100 and so on, in order */
        code = 0x100;
        for (int b = 0; b < byte; b++) code += !is_printable(b);
    }
    bb_gguf_token t = {{(char)code}};
    if (code >= 0x80) {
        t.text[0] = (char)(0xc0 | code >> 6);
        t.text[1] = (char)(0x80 | (code & 0x3f));
    }
    return t;
}
