// SPDX-License-Identifier: MIT
/* Files of torch.save: PyTorch's files give PyTorch's loss; damaged, hostile and other files are refused by name.
 * tests/formats/make_torch.py wrote the files. */
#include "core/input.h"
#include "modelfile/model_source.h"
#include "modelfile/pickle.h"
#include "modelfile/torch_pt.h"
#include "scratch.h"
#include "support.h"
#include "torch_archive.h"

enum { LENGTH = 128 };

static bb_device *device;

static const char *fixture(const char *name) {
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s.pt", BB_FORMATS_DIR, name);
    return path;
}

/* ---- what PyTorch wrote ------------------------------------------------------------------------------------------------------ */

static double expected_loss(const char *name) {
    char line_name[64];
    double loss = 0;
    FILE *f = fopen(BB_FORMATS_DIR "/losses.txt", "r");
    assert_non_null(f);
    while (fscanf(f, "%63s %lf", line_name, &loss) == 2 && strcmp(line_name, name) != 0) loss = 0;
    (void)fclose(f);
    assert_true(loss > 0);
    return loss;
}

/* Of the bytes that make_torch.py takes. */
static double loss_of(bb_model *model) {
    uint8_t data[LENGTH + 1];
    double loss = 0;
    for (int i = 0; i <= LENGTH; i++) data[i] = (uint8_t)(97 + (7 * i * i + i / 5) % 26);
    const bb_train_batch batch = {.x = data, .y = data + 1, .batch_size = 1, .seq_len = LENGTH};
    assert_ok(bb_model_loss(model, &batch, &loss, &test_error));
    return loss;
}

static void expect_loss(const char *name, int n_head) {
    for (int for_inference = 0; for_inference < 2; for_inference++) {
        const bb_import_options options = {
            .struct_size = sizeof(bb_import_options), .n_head = n_head, .for_inference = for_inference};
        bb_model_source source;
        bb_model *model = NULL;
        assert_ok(bb_model_source_open(fixture(name), &options, &source, &test_error));
        assert_int_equal(source.config.n_layer, 1);
        assert_int_equal(source.config.n_kv_head, 1);
        assert_int_equal(source.config.d_ff, 24);
        assert_ok(bb_model_load_source(device, &source, &options, &model, &test_error));
        double expected = expected_loss(name), found = loss_of(model);
        if (fabs(found - expected) > 1e-4 * expected) fail_msg("%s: loss %.7f, PyTorch has %.7f", name, found, expected);
        bb_model_free(model);
        bb_model_source_close(&source);
    }
}

static void files_of_pytorch_give_its_loss(void **state) {
    (void)state;
    static const char *const names[] = {"trainer", "half", "bfloat", "parameters", "views", "head_only"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) expect_loss(names[i], 0);
    expect_loss("state", 2);
}

static void head_count_must_be_given(void **state) {
    (void)state;
    bb_model *model = NULL;
    bb_export_options options;
    assert_fails(bb_model_load(device, fixture("state"), &model, &test_error), BB_ERR_FORMAT, "--n_head");
    assert_null(model);
    /* Every reader takes the option, and none a number that the file contradicts. */
    bb_import_options import;
    bb_config config;
    char *json;
    bool good;
    bb_import_options_default(&import);
    import.n_head = 2;
    assert_ok(bb_config_load(fixture("state"), &import, &config, NULL, &test_error));
    assert_int_equal(config.n_head, 2);
    assert_ok(bb_describe_file(fixture("state"), &import, &json, &test_error));
    bb_string_free(json);
    assert_ok(bb_verify_file(fixture("state"), &import, NULL, NULL, &good, &json, &test_error));
    assert_true(good);
    bb_string_free(json);
    assert_ok(bb_model_import(device, fixture("state"), &import, &model, &test_error));
    assert_true(fabs(loss_of(model) - expected_loss("state")) < 1e-4 * expected_loss("state"));
    bb_model_free(model);
    import.n_head = 4;
    assert_fails(bb_model_import(device, fixture("trainer"), &import, &model, &test_error), BB_ERR_ARGUMENT,
                 "--n_head 4 contradicts the file, which has 2");
    assert_null(model);
    /* With the option, `export` makes a file that says it. */
    bb_export_options_default(&options);
    options.format = "bitbyte";
    options.n_head = 2;
    const char *exported = scratch_path("exported.safetensors");
    assert_ok(bb_export(device, fixture("state"), exported, &options, &test_error));
    assert_ok(bb_model_load(device, exported, &model, &test_error));
    assert_true(fabs(loss_of(model) - expected_loss("state")) < 1e-4 * expected_loss("state"));
    bb_model_free(model);
}

/* ---- what is refused --------------------------------------------------------------------------------------------------------- */

static void expect_file_refused(const char *path, bb_status status, const char *part) {
    bb_model *model = NULL;
    assert_fails(bb_model_load(device, path, &model, &test_error), status, part);
    assert_message(test_error, path);
    assert_null(model);
}

static void other_models_are_refused(void **state) {
    (void)state;
    expect_file_refused(fixture("untied"), BB_ERR_UNSUPPORTED, "model.lm_head.weight differs from model.tok_emb.weight");
    expect_file_refused(fixture("mamba"), BB_ERR_UNSUPPORTED, "model family \"mamba\"");
    expect_file_refused(fixture("diffusion"), BB_ERR_UNSUPPORTED, "variant \"diffusion\"");
    expect_file_refused(fixture("legacy"), BB_ERR_UNSUPPORTED, "before PyTorch 1.6");
}

static void code_is_refused_by_name(void **state) {
    (void)state;
    expect_file_refused(fixture("command"), BB_ERR_UNSUPPORTED, "refused posix.system");
    expect_file_refused(fixture("namespace"), BB_ERR_UNSUPPORTED, "refused argparse.Namespace");
    assert_int_equal(access("bitbyte_ran_a_command", F_OK), -1);
}

/* ---- pickles made by hand ----------------------------------------------------------------------------------------------------- */

#define FLOATS "ctorch\nFloatStorage\n"
#define PROJECTOR "cgalore_torch.galore_projector\nGaLoreProjector\n"
#define STORAGE(class, key, elements) "(X\7\0\0\0storage" class "X\1\0\0\0" key "X\3\0\0\0cpuK" elements "tQ"
#define TENSOR(storage, offset, shape, strides)                                                                                \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset shape strides "\x89"                                                 \
    "NtR"
#define NAMED(value) "\x80\2}X\1\0\0\0t" value "s."
#define FOUR STORAGE(FLOATS, "0", "\4")

typedef struct hostile {
    const char *pickle;
    size_t size;
    const char *part;
} hostile;
#define CASE(pickle, part)                                                                                                     \
    { pickle, sizeof(pickle) - 1, part }

/* Opens a pickle as a file of torch.save. */
static bb_status open_pickle(const void *pickle, size_t pickle_size, bb_tensor_source **out, uint8_t **archive) {
    bb_input input;
    size_t size = 0;
    *archive = torch_archive_of(pickle, pickle_size, &size);
    assert_ok(bb_input_open_memory("m.pt", *archive, size, &input, &test_error));
    return bb_torch_pt_open_input(&input, out, &test_error);
}

static void expect_pickle_refused(const char *pickle, size_t size, const char *part) {
    bb_tensor_source *s = NULL;
    uint8_t *archive = NULL;
    bb_status expected = strncmp(part, "refused", 7) == 0 ? BB_ERR_UNSUPPORTED : BB_ERR_FORMAT;
    bb_status status = open_pickle(pickle, size, &s, &archive);
    if (status != expected) fail_msg("expected '%s', found %s: %s", part, bb_status_name(status), test_error.message);
    assert_message(test_error, part);
    assert_message(test_error, "m.pt: ");
    assert_null(s);
    free(archive);
}

static void handwritten_pickle_is_read(void **state) {
    (void)state;
    /* Elements 1 and 3 of the storage, which are 0. */
    static const char good[] = NAMED(TENSOR(FOUR, "K\1", "K\2\x85", "K\2\x85"));
    static const float zeros[2] = {0};
    float found[2] = {1, 1};
    bb_tensor_source *s = NULL;
    uint8_t *archive = NULL;
    assert_ok(open_pickle(good, sizeof good - 1, &s, &archive));
    assert_int_equal(bb_tensor_source_count(s), 1);
    const bb_file_tensor *t = bb_tensor_source_find(s, "t");
    assert_non_null(t);
    assert_int_equal(t->bytes, 8);
    assert_ok(bb_tensor_source_read(s, t, found, &test_error));
    assert_memory_equal(found, zeros, sizeof found);
    bb_tensor_source_close(s);
    free(archive);
}

/* A dict in a list, with a tuple as a key: JSON has no such keys. Its values must be freed, which the sanitizer watches. */
static void what_json_cannot_have_is_left_out(void **state) {
    (void)state;
    static const char odd[] = "\x80\2}(X\1\0\0\0x}K\1\x85X\1\0\0\0vs\x85X\1\0\0\0yK\2u.";
    bb_tensor_source *s = NULL;
    uint8_t *archive = NULL;
    assert_ok(open_pickle(odd, sizeof odd - 1, &s, &archive));
    assert_null(bb_tensor_source_metadata(s, "x"));
    assert_string_equal(bb_tensor_source_metadata(s, "y"), "2");
    bb_tensor_source_close(s);
    free(archive);
}

static void hostile_pickles_are_refused(void **state) {
    (void)state;
    static const hostile cases[] = {
        /* tensors that do not lie in their storage */
        CASE(NAMED(TENSOR(FOUR, "K\1", "K\4\x85", "K\1\x85")), "extends beyond its storage"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "K\2K\2\x86", "K\4K\1\x86")), "extends beyond its storage"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "K\3K\3\x86", "K\0K\0\x86")), "more elements than its storage"),
        CASE(NAMED(TENSOR(FOUR, "J\377\377\377\377", "K\1\x85", "K\1\x85")), "without a storage and an offset"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "J\377\377\377\377\x85", "K\1\x85")), "invalid size or stride"),
        CASE(NAMED(TENSOR(FOUR, "K\3", "K\2\x85", "J\377\377\377\377\x85")), "invalid size or stride"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "\x8a\10\0\0\0\0\0\0\0\100\x8a\10\0\0\0\0\0\0\0\100\x86", "K\1K\1\x86")),
             "shape overflows"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "K\3\x85", "\x8a\10\0\0\0\0\0\0\0\100\x85")), "strides overflow"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "K\2\x85", "K\1K\1\x86")), "numbers of strides and sizes differ"),
        CASE(NAMED(TENSOR(FOUR, "K\0", "(K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1t")), "at most four sizes"),
        CASE(NAMED(TENSOR("K\1", "K\0", "K\2\x85", "K\1\x85")), "without a storage"),
        CASE(NAMED(TENSOR(STORAGE(FLOATS, "0", "\21"), "K\0", "K\1\x85", "K\1\x85")),
             "a storage of 17 elements, found 64 bytes"),
        CASE(NAMED(TENSOR(STORAGE(FLOATS, "7", "\4"), "K\0", "K\1\x85", "K\1\x85")), "entry 'a/data/7' is missing"),
        CASE(NAMED(STORAGE("ctorch\nSize\n", "0", "\4")), "a persistent id that is not a storage"),
        CASE(NAMED("K\1Q"), "a persistent id that is not a storage"),
        /* code */
        CASE(NAMED("cos\nsystem\nX\1\0\0\0x\x85R"), "refused os.system"),
        CASE(NAMED("X\2\0\0\0osX\6\0\0\0system\x93)R"), "refused os.system"),
        CASE(NAMED("cbuiltins\neval\n)R"), "refused builtins.eval"),
        CASE(NAMED("ctorch\nload\n)R"), "refused torch.load"),
        CASE(NAMED("ca\33[2J\nb\n)R"), "refused a?[2J.b"),
        CASE(NAMED("(ios\nsystem\n"), "operation 0x69"),
        CASE(NAMED("ccollections\nOrderedDict\n)\x81"), "creates an object that"),
        CASE(NAMED(PROJECTOR "N\x85\x81"), "creates an object that"),
        CASE(NAMED(PROJECTOR "N\x81"), "creates an object without a tuple"),
        CASE(NAMED("N)\x81"), "creates an object of a value"),
        CASE(NAMED(PROJECTOR ")R"), "calls a type"),
        CASE(NAMED(PROJECTOR "}b"), "sets the state of a value"),
        CASE(NAMED("\x82\1"), "operation 0x82"),
        CASE(NAMED("P1\n"), "operation 0x50"),
        CASE(NAMED(FLOATS ")R"), "calls a type"),
        CASE(NAMED("]]R"), "calls a value that is not a function"),
        CASE(NAMED("]}b"), "sets the state of a value that is not a dict"),
        /* stack, marks, memo */
        CASE("", "has no end"),
        CASE(".", "empty stack"),
        CASE("\x80\6}.", "an unknown protocol"),
        CASE("\x80\2].", "expected a dict"),
        CASE(NAMED("t"), "no mark"),
        CASE(NAMED("h\1"), "was not set"),
        CASE("\x80\2}r\377\377\377\377.", "memo key larger"),
        CASE("\x80\2q\0.", "empty stack"),
        CASE("\x80\2(K\1d.", "odd number"),
        CASE("\x80\2}(K\1u.", "odd number"),
        CASE("\x80\2(\x85.", "more values than the stack has"),
        CASE("\x80\2X\377\377\377\377x.", "ends in the middle"),
        CASE("\x80\2\x8d\377\377\377\377\377\377\377\377x.", "ends in the middle"),
        CASE("\x80\4\x95\377\0\0\0\0\0\0\0}.", "a frame longer than"),
        CASE("\x80\2X\2\0\0\0a\0.", "zero byte"),
        CASE("\x80\2\x8a\11\1\1\1\1\1\1\1\1\1.", "more than 64 bits"),
        CASE("\x80\2}]]s.", "keys that are short strings or integers"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_pickle_refused(cases[i].pickle, cases[i].size, cases[i].part);
}

/* Files of the shape that was found to break PyTorch's own reader. */
static void known_attacks_are_refused(void **state) {
    (void)state;
    /* CVE-2026-24747: operations that set items of what is no dict, and storages whose sizes lie. */
    static const hostile cases[] = {
        CASE(NAMED(TENSOR(FOUR, "K\1", "K\2\x85", "K\2\x85") "K\0K\1s"), "adds an item to a value that is not a list or dict"),
        CASE(NAMED(TENSOR(FOUR, "K\1", "K\2\x85", "K\2\x85") "(K\0K\1u"), "sets items of a value that is not a dict"),
        CASE(NAMED("](K\0K\1u"), "sets items of a value that is not a dict"),
        CASE(NAMED(FLOATS "K\0K\1s"), "adds an item to a value that is not a list or dict"),
        CASE(NAMED("X\1\0\0\0xK\0K\1s"), "adds an item to a value that is not a list or dict"),
        CASE(NAMED(TENSOR(FOUR, "K\1", "K\2\x85", "K\2\x85") "(K\0K\1e"), "adds items to a value that is not a list"),
        CASE(NAMED(TENSOR(STORAGE(FLOATS, "0", "\xff"), "K\0", "K\1\x85", "K\1\x85")),
             "a storage of 255 elements, found 64 bytes"),
        CASE(NAMED(TENSOR("(X\7\0\0\0storage" FLOATS "X\1\0\0\0000X\3\0\0\0cpu\x8a\10\0\0\0\0\0\0\0\100tQ", "K\0", "K\1\x85",
                          "K\1\x85")),
             "a storage of 4611686018427387904 elements"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_pickle_refused(cases[i].pickle, cases[i].size, cases[i].part);
    /* CVE-2025-32434: a tar archive, the format before the legacy one, whose pickles PyTorch ran whatever weights_only said. */
    static uint8_t tar[3 * 512];
    static const char code[] = "cos\nsystem\n(X\46\0\0\0touch bitbyte_ran_a_command_from_a_tartR.";
    bb_tensor_source *s = NULL;
    bb_input input;
    memcpy(tar, "storages", 8);
    memcpy(tar + 100, "0000644", 7);
    memcpy(tar + 124, "00000000077", 11);
    memcpy(tar + 156, "0", 1);
    memcpy(tar + 257, "ustar\00000", 8);
    memcpy(tar + 512, code, sizeof code - 1);
    assert_ok(bb_input_open_memory("m.tar", tar, sizeof tar, &input, &test_error));
    assert_fails(bb_tensor_source_open_input(&input, &s, &test_error), BB_ERR_FORMAT, "m.tar");
    assert_null(s);
    assert_int_equal(access("bitbyte_ran_a_command_from_a_tar", F_OK), -1);
}

typedef struct builder {
    char data[1 << 16];
    size_t size;
} builder;

static void add(builder *b, const void *bytes, size_t size) {
    assert_true(size <= sizeof b->data - b->size);
    memcpy(b->data + b->size, bytes, size);
    b->size += size;
}

/* `levels` dicts or lists, each of which holds the one before it `width` times. */
static void add_bomb(builder *b, bool dict, int levels, int width) {
    add(b, "\x80\2", 2);
    add(b, dict ? "}q\0" : "]q\0", 3);
    for (int level = 1; level <= levels; level++) {
        add(b, dict ? "}(" : "](", 2);
        for (int i = 0; i < width; i++) {
            const char key[2] = {'K', (char)i}, get[2] = {'h', (char)(level - 1)};
            if (dict) add(b, key, 2);
            add(b, get, 2);
        }
        const char put[3] = {dict ? 'u' : 'e', 'q', (char)level};
        add(b, put, 3);
    }
}

static void pickle_bombs_are_refused(void **state) {
    (void)state;
    builder *b = calloc(1, sizeof *b);
    assert_non_null(b);
    bb_tensor_source *s = NULL;
    uint8_t *archive = NULL;

    add_bomb(b, true, 7, 100); /* 100^7 keys */
    add(b, ".", 1);
    expect_pickle_refused(b->data, b->size, "more than 1048576 values");
    b->size = 0;
    add_bomb(b, true, 100, 1);
    add(b, ".", 1);
    expect_pickle_refused(b->data, b->size, "dicts more than 8 deep");

    /* What is too much for metadata is left out of them. */
    b->size = 0;
    add_bomb(b, false, 7, 100);
    add(b, "q\377}X\1\0\0\0xh\377s.", 13);
    assert_ok(open_pickle(b->data, b->size, &s, &archive));
    assert_null(bb_tensor_source_metadata(s, "x"));
    bb_tensor_source_close(s);
    free(archive);

    /* A list that holds itself, and a dict that does. */
    static const char in_list[] = "\x80\2}X\1\0\0\0x]q\0h\0as.", in_dict[] = "\x80\2}q\0X\1\0\0\0xh\0s.";
    assert_ok(open_pickle(in_list, sizeof in_list - 1, &s, &archive));
    assert_null(bb_tensor_source_metadata(s, "x"));
    bb_tensor_source_close(s);
    free(archive);
    expect_pickle_refused(in_dict, sizeof in_dict - 1, "dicts more than 8 deep");

    /* Nesting as deep as the pickle is long, and marks without an end. */
    memset(b->data, ']', sizeof b->data);
    memset(b->data + sizeof b->data / 2, 'a', sizeof b->data / 2 - 2);
    b->data[sizeof b->data - 1] = '.';
    b->data[sizeof b->data - 2] = '.';
    expect_pickle_refused(b->data, sizeof b->data, "expected a dict");
    memset(b->data, '(', sizeof b->data);
    expect_pickle_refused(b->data, sizeof b->data, "has no end");
    free(b);
}

/* ---- damaged files ----------------------------------------------------------------------------------------------------------- */

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *data = malloc(1 << 20);
    assert_non_null(data);
    *size = fread(data, 1, 1 << 20, f);
    (void)fclose(f);
    return data;
}

/* The pickle of a file of torch.save. */
static uint8_t *read_pickle(const char *path, const char *entry, size_t *size) {
    zip_t *zip = zip_open(path, ZIP_RDONLY, NULL);
    uint8_t *data = malloc(1 << 20);
    assert_non_null(zip);
    assert_non_null(data);
    zip_file_t *file = zip_fopen(zip, entry, 0);
    assert_non_null(file);
    zip_int64_t got = zip_fread(file, data, 1 << 20);
    assert_true(got > 0);
    (void)zip_fclose(file);
    zip_discard(zip);
    *size = (size_t)got;
    return data;
}

static void damaged_pickles_are_refused(void **state) {
    (void)state;
    size_t size = 0;
    uint8_t *pickle = read_pickle(fixture("trainer"), "trainer/data.pkl", &size);
    bb_pickle read;
    for (size_t n = 0; n < size; n++) {
        uint8_t *exact = malloc(n + 1); /* of its length, so that sanitizers see a read past it */
        assert_non_null(exact);
        memcpy(exact, pickle, n);
        assert_fails(bb_pickle_read(exact, n, "m.pt", &read, &test_error), BB_ERR_FORMAT, "m.pt: pickle, byte ");
        free(exact);
    }
    for (size_t n = 0; n < size; n++) { /* refused or read: never more than that */
        uint8_t before = pickle[n];
        pickle[n] = (uint8_t)(before ^ 0x11);
        if (bb_pickle_read(pickle, size, "m.pt", &read, &test_error) == BB_OK) bb_pickle_free(&read);
        pickle[n] = before;
    }
    assert_ok(bb_pickle_read(pickle, size, "m.pt", &read, &test_error));
    assert_int_equal(read.values[read.root].kind, BB_PICKLE_DICT);
    bb_pickle_free(&read);
    free(pickle);
}

static void damaged_archives_are_refused(void **state) {
    (void)state;
    size_t size = 0;
    uint8_t *file = read_file(fixture("half"), &size);
    char path[512];
    (void)snprintf(path, sizeof path, "%s", scratch_path("damaged.pt"));
    for (size_t n = 4; n < size; n += 197) {
        assert_true(scratch_write(path, file, n));
        expect_file_refused(path, BB_ERR_FORMAT, "zip archive");
    }
    file[size / 2] ^= 1; /* in a weight: found by the archive's checksum */
    assert_true(scratch_write(path, file, size));
    expect_file_refused(path, BB_ERR_FORMAT, "CRC error");
    free(file);
}

static void expect_archive_refused(const torch_entry *entries, int count, const char *part) {
    size_t size = 0;
    uint8_t *archive = torch_archive(entries, count, &size);
    for (size_t i = 0; i + 8 <= size; i++) /* libzip writes no name twice */
        if (memcmp(archive + i, "a/data/!", 8) == 0) archive[i + 7] = '0';
    const char *path = scratch_path("archive.pt");
    assert_true(scratch_write(path, archive, size));
    expect_file_refused(path, BB_ERR_FORMAT, part);
    free(archive);
}

static void odd_archives_are_read_or_refused(void **state) {
    (void)state;
    static const char pickle[] = NAMED(TENSOR(FOUR, "K\0", "K\4\x85", "K\1\x85"));
    static const uint8_t floats[4096] = {0};
    const torch_entry good = {"a/data.pkl", pickle, sizeof pickle - 1, false};
    expect_archive_refused((torch_entry[]){good, {"a/data/0", floats, sizeof floats, true}}, 2,
                           "entry 'a/data/0' is compressed or encrypted");
    expect_archive_refused((torch_entry[]){{"a/data.pkl", floats, sizeof floats, true}}, 1,
                           "entry 'a/data.pkl' is compressed or encrypted");
    expect_archive_refused((torch_entry[]){good, {"b/data.pkl", pickle, sizeof pickle - 1, false}}, 2, "found two");
    expect_archive_refused((torch_entry[]){{"a/x", pickle, 4, false}}, 1, "without data.pkl");
    expect_archive_refused((torch_entry[]){good, {"a/data/0", floats, 16, false}, {"a/data/!", floats, 16, false}}, 3,
                           "zip archive");
    expect_archive_refused((torch_entry[]){good, {"a/data/0", floats, 15, false}}, 2, "found 15 bytes");
}

static int set_up(void **state) {
    return scratch_create(state) == 0 && bb_device_open("cpu", 1, &device, &test_error) == BB_OK ? 0 : -1;
}

static int tear_down(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_pytorch_give_its_loss),   cmocka_unit_test(head_count_must_be_given),
        cmocka_unit_test(other_models_are_refused),         cmocka_unit_test(code_is_refused_by_name),
        cmocka_unit_test(handwritten_pickle_is_read),       cmocka_unit_test(hostile_pickles_are_refused),
        cmocka_unit_test(known_attacks_are_refused),        cmocka_unit_test(pickle_bombs_are_refused),
        cmocka_unit_test(damaged_pickles_are_refused),      cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(odd_archives_are_read_or_refused), cmocka_unit_test(what_json_cannot_have_is_left_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
