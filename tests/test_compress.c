// SPDX-License-Identifier: MIT
/* Compression: whatever is written comes back byte for byte; streams that are damaged, truncated or made with another model are refused. */
#include "support.h"

#include <xxhash.h>
#include <zstd.h>

#include "coding/counts.h"
#include "coding/lanes.h"
#include "coding/mixer.h"
#include "coding/range_coder.h"
#include "coding/stream.h"
#include "core/rng.h"
#include "levels.h"
#include "scratch.h"
#include "tiny_model.h"

enum { MAX_SIZE = 300000 };
#define EXPECTED_MIX 0xe90f9a6be4f0966cu
#define EXPECTED_HASH 0x98320a9d8498217cu

static bb_device *device;
static bb_model *model, *other;
static uint64_t drawn;

static int64_t below(int64_t n) { return (int64_t)bb_rng_below(11, BB_STREAM_TEST, drawn++, (uint64_t)n); }

static int set_up(void **state) {
    bb_config small = tiny;
    small.n_layer = 1;
    assert_int_equal(scratch_create(state), 0);
    assert_ok(bb_device_open("cpu", 2, &device, &test_error));
    assert_ok(bb_model_create(device, &small, 3, &model, &test_error));
    assert_ok(bb_model_create(device, &small, 4, &other, &test_error));
    return 0;
}

static int tear_down(void **state) {
    (void)scratch_remove(state);
    bb_model_free(model);
    bb_model_free(other);
    bb_device_close(device);
    return 0;
}

/* ---- counts and coder ------------------------------------------------------------------------------------------------------ */

static void counts_follow_the_logits(void **state) {
    (void)state;
    float logits[256];
    uint32_t counts[256];
    for (int round = 0; round < 300; round++) {
        double spread = (double)(1 << below(8)) / 8, sum = 0;
        for (int i = 0; i < 256; i++) logits[i] = (float)((double)(below(20001) - 10000) * 1e-4 * spread);
        if (round % 7 == 0) logits[below(256)] = (float)NAN;
        if (round % 11 == 0) logits[below(256)] = -INFINITY;
        bb_counts_from_logits(logits, counts);
        uint64_t total = 0;
        for (int i = 0; i < 256; i++) {
            assert_true(counts[i] >= 1);
            total += counts[i];
            if (isfinite(logits[i])) sum += exp((double)logits[i]);
        }
        assert_int_equal(total, BB_COUNTS_TOTAL);
        for (int i = 0; i < 256 && round % 7; i++) {
            double p = isfinite(logits[i]) ? exp((double)logits[i]) / sum : 0;
            double expected = 1 + p * (BB_COUNTS_TOTAL - 256);
            if (!(fabs(counts[i] - expected) <= 260 + 1e-6 * expected))
                fail_msg("count %d: %u, not %g", i, counts[i], expected);
        }
    }
    for (int i = 0; i < 256; i++) logits[i] = (float)NAN; /* still counts */
    bb_counts_from_logits(logits, counts);
    assert_true(counts[255] >= 1 && counts[0] >= 1);
    /* the same on every machine: a hash of counts, made once */
    uint64_t hash = 0;
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 256; i++)
            logits[i] =
                (float)((int64_t)bb_rng_below(5, BB_STREAM_TEST, (uint64_t)(round * 256 + i), 4000001) - 2000000) * 4e-6F;
        bb_counts_from_logits(logits, counts);
        for (int i = 0; i < 256; i++) hash = (hash ^ counts[i]) * 0x9E3779B97F4A7C15u;
    }
    if (hash != EXPECTED_HASH) fail_msg("the counts' hash is %016llx", (unsigned long long)hash);
}

static void the_coder_gives_back_what_it_took(void **state) {
    (void)state;
    enum { N = 20000 };
    static uint32_t lows[N], counts[N];
    bb_range_encoder e = {.bytes = NULL};
    for (int round = 0; round < 18; round++) {
        double bits = 0;
        int n = (int)below(round % 2 ? N : 10);
        bb_range_encoder_begin(&e);
        for (int i = 0; i < n; i++) {
            int64_t kind = below(4);
            counts[i] = kind == 0   ? 1
                        : kind == 1 ? (uint32_t)(BB_COUNTS_TOTAL - 255)
                                    : (uint32_t)(1 + below(BB_COUNTS_TOTAL - 1));
            lows[i] = (uint32_t)below(BB_COUNTS_TOTAL - counts[i] + 1);
            bb_range_encode(&e, lows[i], counts[i]);
            bits += BB_COUNTS_BITS - log2(counts[i]);
        }
        bb_range_encoder_end(&e);
        assert_false(e.no_memory);
        if (!((double)e.size <= bits / 8 * 1.0001 + 4)) fail_msg("%d symbols: %zu bytes, not %g", n, e.size, bits / 8);
        bb_range_decoder d;
        bb_range_decoder_begin(&d, e.bytes, e.size);
        for (int i = 0; i < n; i++) {
            uint32_t target = bb_range_decode_target(&d);
            assert_true(target >= lows[i] && target - lows[i] < counts[i]);
            bb_range_decode_consume(&d, lows[i], counts[i]);
        }
        assert_true(d.at == d.end);
    }
    bb_range_encoder_free(&e);
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */

typedef struct buffer {
    uint8_t *bytes;
    size_t size, capacity;
} buffer;

static bool take(void *user, const uint8_t *bytes, size_t size) {
    buffer *b = user;
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size) + 1000;
        b->bytes = realloc(b->bytes, b->capacity);
        assert_non_null(b->bytes);
    }
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return true;
}

static bb_compress_options options_for(buffer *out) {
    bb_compress_options o;
    bb_compress_options_default(&o);
    o.lanes = 1 + (int)below(20);
    o.block_bytes = 65536;
    o.context_length = 24 + (int)below(80);
    o.kv_cache = (bb_kv_type)below(3);
    o.blocks = (int)below(4);
    o.mix = below(2);
    o.on_output = take;
    o.user = out;
    return o;
}

static void compress(const uint8_t *bytes, size_t size, buffer *out) {
    bb_compressor *c;
    bb_compress_options o = options_for(out);
    out->size = 0;
    assert_ok(bb_compressor_open(model, &o, &c, &test_error));
    for (size_t at = 0, n; at < size; at += n) {
        n = 1 + (size_t)below(below(2) ? 100 : MAX_SIZE);
        if (n > size - at) n = size - at;
        assert_ok(bb_compressor_write(c, bytes + at, n, &test_error));
    }
    assert_ok(bb_compressor_finish(c, &test_error));
    bb_compressor_close(c);
}

/* Feeds it in pieces; returns the first failure, or what finish says. */
static bb_status decompress(bb_model *with, const uint8_t *bytes, size_t size, buffer *out) {
    bb_decompressor *d;
    bb_compress_options o = options_for(out);
    out->size = 0;
    assert_ok(bb_decompressor_open(with, &o, &d, &test_error));
    bb_status status = BB_OK;
    for (size_t at = 0, n; at < size && status == BB_OK; at += n) {
        n = 1 + (size_t)below(below(2) ? 50 : MAX_SIZE);
        if (n > size - at) n = size - at;
        status = bb_decompressor_write(d, bytes + at, n, &test_error);
    }
    if (status == BB_OK) status = bb_decompressor_finish(d, &test_error);
    bb_decompressor_close(d);
    return status;
}

/* Texts of many kinds. */
static size_t draw_input(int kind, uint8_t *x) {
    static const char words[] = "the line says that it is not the same as it was ";
    size_t size = kind == 0 ? (size_t)below(4) : (size_t)below(kind >= 9 ? 140000 : 1500);
    for (size_t i = 0; i < size; i++) switch (kind) {
        case 1:
        case 10: x[i] = (uint8_t)below(256); break;                                        /* random */
        case 2: x[i] = 0; break;                                                           /* one byte, many times */
        case 3: x[i] = (uint8_t)words[i % (sizeof words - 1)]; break;                      /* a text */
        case 4: x[i] = (uint8_t)(i / 3); break;                                            /* ramps */
        case 5: x[i] = (uint8_t)(below(20) ? 'a' : below(256)); break;                     /* nearly one byte */
        case 6: x[i] = (uint8_t)words[(size_t)below((int64_t)sizeof words - 1)]; break;    /* letters */
        case 7: x[i] = (uint8_t)(i < size / 2 ? below(256) : 'x'); break;                  /* half random */
        case 8: x[i] = i > 40 ? x[i - (size_t)below(2) - 39] : (uint8_t)below(256); break; /* repeats */
        default: x[i] = (uint8_t)(below(50) ? 255 : below(256)); break;
        }
    return size;
}

/* Any part of a stream. */
static void check_ranges(const buffer *coded, const uint8_t *x, size_t size, int count) {
    buffer part = {0};
    const char *path = scratch_path("ranges.bby");
    assert_true(scratch_write(path, coded->bytes, coded->size));
    for (int i = 0; i < count; i++) {
        bb_compress_options o = options_for(&part);
        size_t from = (size_t)below((int64_t)size + 1), length = i ? (size_t)below((int64_t)(size - from) + 10) : SIZE_MAX;
        size_t expected = length < size - from ? length : size - from;
        part.size = 0;
        assert_ok(bb_decompress_range(model, &o, path, from, length, &test_error));
        assert_int_equal(part.size, expected);
        if (expected) assert_memory_equal(part.bytes, x + from, expected);
    }
    bb_compress_options o = options_for(&part);
    assert_fails(bb_decompress_range(model, &o, path, size + 1, 1, &test_error), BB_ERR_ARGUMENT, "beyond");
    free(part.bytes);
}

static void any_input_comes_back(void **state) {
    (void)state;
    static uint8_t x[MAX_SIZE];
    buffer coded = {0}, back = {0};
    for (int round = 0; round < 27; round++) {
        size_t size = draw_input(round % 9, x);
        compress(x, size, &coded);
        if ((double)coded.size > 1.001 * (double)size + 64)
            fail_msg("kind %d: %zu bytes became %zu", round % 9, size, coded.size);
        assert_true(bb_is_compressed(coded.bytes, coded.size));
        assert_ok(decompress(model, coded.bytes, coded.size, &back));
        assert_int_equal(back.size, size);
        assert_memory_equal(back.bytes, x, size);
    }
    size_t size = draw_input(9, x); /* several blocks */
    compress(x, size, &coded);
    assert_ok(decompress(model, coded.bytes, coded.size, &back));
    assert_int_equal(back.size, size);
    assert_memory_equal(back.bytes, x, size);
    check_ranges(&coded, x, size, 2);
    free(coded.bytes);
    free(back.bytes);
}

/* What the compressor seldom takes of an untrained model: zstd knows these texts better. */
static void lanes_come_back(void **state) {
    (void)state;
    static uint8_t x[MAX_SIZE], back[MAX_SIZE];
    for (int round = 0; round < 18; round++) {
        const bb_lanes_options o = {.lanes = 1 + (int)below(20),
                                    .window = 2 + (int)below(round % 4 ? 100 : 3),
                                    .kv_cache = (bb_kv_type)below(3),
                                    .mix = round % 2};
        bb_lanes *lanes, *others;
        bb_bytes coded;
        size_t size = draw_input(round % 9, x) + 1;
        assert_ok(bb_lanes_open(model, &o, &lanes, &test_error));
        assert_ok(bb_lanes_encode(lanes, x, size, SIZE_MAX, &coded, &test_error));
        if (round % 3) assert_ok(bb_lanes_encode(lanes, x, size, SIZE_MAX, &coded, &test_error)); /* used again */
        assert_non_null(coded.data);
        bb_lanes_options fewer = o;
        fewer.lanes = 1; /* it takes what it finds */
        assert_ok(bb_lanes_open(model, &fewer, &others, &test_error));
        bb_lanes_block blocks[3]; /* side by side */
        for (int i = 0; i < 3; i++)
            blocks[i] = (bb_lanes_block){.coded = coded, .bytes = back + i * 2000, .size = size, .mixed = o.mix};
        assert_ok(bb_lanes_decode(others, blocks, 3, &test_error));
        for (int i = 0; i < 3; i++) {
            assert_ok(blocks[i].status);
            assert_memory_equal(blocks[i].bytes, x, size);
        }
        if (coded.size > 30) { /* changed, it is refused, or gives other bytes */
            uint8_t *bad = malloc(coded.size);
            memcpy(bad, coded.data, coded.size);
            bad[below((int64_t)coded.size - 8)] ^= (uint8_t)(1 << below(8));
            blocks[1].coded.data = bad;
            assert_ok(bb_lanes_decode(others, blocks, 3, &test_error));
            assert_true(blocks[1].status == BB_ERR_FORMAT || memcmp(blocks[1].bytes, x, size) != 0);
            assert_ok(blocks[2].status);
            assert_memory_equal(blocks[2].bytes, x, size);
            free(bad);
        }
        bb_lanes_close(lanes);
        bb_lanes_close(others);
    }
}

/* Contexts alone, as the model knows nothing: they learn, and predict the same everywhere. The hash was made once. */
static void the_mixer_learns(void **state) {
    (void)state;
    static uint8_t x[MAX_SIZE];
    uint32_t counts[256];
    bb_mixer *mixer;
    uint64_t hash = 0;
    double best = 0;
    assert_ok(bb_mixer_open(&mixer, &test_error));
    for (int i = 0; i < 256; i++) counts[i] = BB_COUNTS_TOTAL / 256;
    for (int kind = 1; kind < 9; kind++) {
        drawn = (uint64_t)kind * 100000;
        size_t size = draw_input(kind, x);
        double bits = 0;
        if (kind == 4) counts[0] += 255 * (BB_COUNTS_TOTAL / 256 - 1), counts[255] = 1; /* and a model that errs */
        assert_ok(bb_mixer_clear(mixer, size, 20, &test_error));
        for (size_t i = 0; i < size; i++) {
            bb_mixer_begin_byte(mixer, x, i, counts);
            for (int k = 7; k >= 0; k--) {
                int bit = x[i] >> k & 1;
                uint32_t p = bb_mixer_predict(mixer);
                assert_true(p >= 1 && p < 1 << BB_MIXER_BITS);
                bits -= log2((double)(bit ? p : (1 << BB_MIXER_BITS) - p)) - BB_MIXER_BITS;
                hash = (hash ^ p) * 0x9E3779B97F4A7C15u;
                bb_mixer_update(mixer, bit);
            }
        }
        if (kind == 3) best = bits / (double)size;
        if (kind == 1 && !(bits < 8.8 * (double)size)) fail_msg("random bytes cost %g bits each", bits / (double)size);
    }
    bb_mixer_close(mixer);
    if (!(best < 0.9)) fail_msg("a text that repeats itself costs %g bits a byte", best);
    if (hash != EXPECTED_MIX) fail_msg("the hash of the mixer's probabilities is 0x%016llx", (unsigned long long)hash);
}

/* At every level of processor. The hashes were made once. */
static void the_code_is_the_same_everywhere(void **state) {
    (void)state;
    static uint8_t x[4000];
    static const uint64_t expected[] = {
        [BB_KV_INT6] = 0xb2d9a2b0c38e6158u, [BB_KV_INT8] = 0x7d2455f1bf20d66cu, [BB_KV_F32] = 0xff32db0da4759f92u};
    bool good = true;
    for (size_t i = 0; i < sizeof x; i++) x[i] = (uint8_t)(200 + bb_rng_below(9, BB_STREAM_TEST, i, 30));
    for (int type = BB_KV_INT6; type <= BB_KV_F32; type++) {
        const bb_lanes_options o = {.lanes = 2, .window = 300, .kv_cache = (bb_kv_type)type};
        bb_lanes *lanes;
        bb_bytes coded;
        uint64_t hash = 0;
        assert_ok(bb_lanes_open(model, &o, &lanes, &test_error));
        assert_ok(bb_lanes_encode(lanes, x, sizeof x, SIZE_MAX, &coded, &test_error));
        for (size_t i = 0; i < coded.size; i++) hash = (hash ^ coded.data[i]) * 0x9E3779B97F4A7C15u;
        if (hash != expected[type])
            print_error("cache type %d: %zu bytes, hash 0x%016llx\n", type, coded.size, (unsigned long long)hash);
        good &= hash == expected[type];
        bb_lanes_close(lanes);
    }
    assert_true(good);
}

/* Some thousand blocks, so that there are several tables; the model is not asked. */
static void tables_lead_to_any_block(void **state) {
    (void)state;
    enum { BLOCK = 1 << BB_STREAM_MIN_BLOCK_BITS, BLOCKS = 2 * BB_STREAM_TABLE_BLOCKS + 3 };
    static uint8_t x[(BLOCKS - 1) * (size_t)BLOCK + 5];
    bb_stream_header header = {.block_bits = BB_STREAM_MIN_BLOCK_BITS, .window = 30};
    buffer coded = {0}, back = {0};
    uint8_t bytes[BB_STREAM_TABLE_BYTES], zstd[1000];
    for (int blocks = BB_STREAM_TABLE_BLOCKS; blocks <= BLOCKS; blocks += BLOCKS - BB_STREAM_TABLE_BLOCKS) {
        bb_stream_table table = {.entries = 0};
        size_t size = blocks < BLOCKS ? (size_t)blocks * BLOCK : sizeof x;
        assert_ok(bb_model_hash(model, header.model, &test_error));
        bb_stream_write_header(&header, bytes);
        coded.size = 0;
        take(&coded, bytes, BB_STREAM_HEADER_BYTES);
        for (int i = 0; i < blocks; i++) {
            size_t at = (size_t)i * BLOCK, n = size - at < BLOCK ? size - at : BLOCK;
            memset(x + at, i % 251, n);
            memcpy(x + at, &i, sizeof i);
            bb_stream_block b = {.kind = BB_BLOCK_ZSTD, .size = (uint32_t)n};
            b.coded = (uint32_t)ZSTD_compress(zstd, sizeof zstd, x + at, n, 1);
            const uint8_t *best = zstd;
            if (b.coded >= n) {
                b.kind = BB_BLOCK_STORED;
                b.coded = b.size;
                best = x + at;
            }
            b.check = bb_stream_check(&b, best, x + at);
            if (bb_stream_table_due(&table, false)) take(&coded, bytes, bb_stream_write_table(&table, coded.size, bytes));
            bb_stream_table_add(&table, &b, header.block_bits);
            take(&coded, bytes, bb_stream_write_block(&b, bytes));
            take(&coded, best, b.coded);
        }
        if (bb_stream_table_due(&table, true)) take(&coded, bytes, bb_stream_write_table(&table, coded.size, bytes));
        const bb_stream_block end = {.kind = BB_BLOCK_END, .total = size, .hash = XXH3_64bits(x, size)};
        take(&coded, bytes, bb_stream_write_block(&end, bytes));
        assert_ok(decompress(model, coded.bytes, coded.size, &back));
        assert_int_equal(back.size, size);
        assert_memory_equal(back.bytes, x, size);
        check_ranges(&coded, x, size, 20);
        /* a number in a table, and one too few */
        size_t at = coded.size - BB_STREAM_END_BYTES - 6;
        coded.bytes[at] ^= 1;
        assert_int_equal(decompress(model, coded.bytes, coded.size, &back), BB_ERR_FORMAT);
        assert_message(test_error, "a table of");
        coded.bytes[at] ^= 1;
    }
    free(coded.bytes);
    free(back.bytes);
}

/* What has been given before the error is the beginning of the input. */
static void damage_is_found(void **state) {
    (void)state;
    static uint8_t x[MAX_SIZE], bad[MAX_SIZE];
    buffer coded = {0}, back = {0};
    for (int round = 0; round < 18; round++) {
        size_t size = draw_input(round == 17 ? 10 : round % 3 == 0 ? 3 : round % 3 == 1 ? 6 : 1, x);
        compress(x, size, &coded);
        assert_true(coded.size < MAX_SIZE);
        memcpy(bad, coded.bytes, coded.size);
        size_t at = (size_t)below((int64_t)coded.size);
        bad[at] ^= (uint8_t)(1 << below(8));
        bb_status status = decompress(model, bad, coded.size, &back);
        if (status != BB_ERR_FORMAT && status != BB_ERR_UNSUPPORTED)
            fail_msg("a changed byte %zu of %zu gives %s", at, coded.size, bb_status_name(status));
        assert_message(test_error, "byte ");
        assert_true(back.size <= size);
        if (back.size) assert_memory_equal(back.bytes, x, back.size);
        assert_int_equal(decompress(model, coded.bytes, coded.size - 1, &back), BB_ERR_FORMAT);
        assert_message(test_error, "truncated");
        assert_int_equal(back.size, size); /* blocks that are whole are given */
        if (coded.size > 40) {
            size_t cut = (size_t)below((int64_t)coded.size);
            assert_int_equal(decompress(model, coded.bytes, cut, &back), BB_ERR_FORMAT);
            assert_message(test_error, "truncated");
        }
        coded.bytes[coded.size] = 0; /* take() leaves room */
        assert_int_equal(decompress(model, coded.bytes, coded.size + 1, &back), BB_ERR_FORMAT);
        assert_message(test_error, "more bytes follow");
        assert_int_equal(decompress(other, coded.bytes, coded.size, &back), BB_ERR_FORMAT);
        assert_message(test_error, "made with another model");
        assert_int_equal(back.size, 0);
    }
    free(coded.bytes);
    free(back.bytes);
}

/* Lanes, as the model does not know the words: the size with one lane is near what the model's logits promise. */
static void the_size_is_what_the_model_promises(void **state) {
    (void)state;
    static uint8_t x[20000];
    buffer coded = {0};
    bb_compressor *c;
    bb_compress_options o = options_for(&coded);
    o.lanes = 1;
    o.context_length = 64;
    o.kv_cache = BB_KV_F32;
    for (size_t i = 0; i < sizeof x; i++) x[i] = (uint8_t)(200 + below(40));
    bb_score_text t = {.text = {x, sizeof x}};
    bb_score_options score = {.struct_size = sizeof(bb_score_options), .seq_len = 64};
    assert_ok(bb_score(model, &t, 1, &score, &test_error));
    assert_ok(bb_compressor_open(model, &o, &c, &test_error));
    assert_ok(bb_compressor_write(c, x, sizeof x, &test_error));
    assert_ok(bb_compressor_finish(c, &test_error));
    bb_compressor_close(c);
    double size = (double)coded.size, promised = t.bits / 8;
    /* an untrained model may lose to zstd; then the stream is smaller */
    if (!(size < 1.005 * promised + 64)) fail_msg("%g bytes, promised %g", size, promised);
    free(coded.bytes);
}

int main(void) {
    const struct CMUnitTest level_tests[] = {cmocka_unit_test(counts_follow_the_logits), cmocka_unit_test(the_mixer_learns),
                                             cmocka_unit_test(the_code_is_the_same_everywhere)};
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_follow_the_logits),
                                       cmocka_unit_test(the_coder_gives_back_what_it_took),
                                       cmocka_unit_test(the_code_is_the_same_everywhere),
                                       cmocka_unit_test(the_mixer_learns),
                                       cmocka_unit_test(lanes_come_back),
                                       cmocka_unit_test(any_input_comes_back),
                                       cmocka_unit_test(tables_lead_to_any_block),
                                       cmocka_unit_test(damage_is_found),
                                       cmocka_unit_test(the_size_is_what_the_model_promises)};
    if (begin_level(NULL)) return cmocka_run_group_tests(level_tests, set_up, tear_down);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
