// SPDX-License-Identifier: MIT
/* Chat templates in model files: which are valid, that every format keeps them, how invalid ones are handled, and the same for
 * Jinja. */
#include "support.h"

#include "core/file.h"
#include "modelfile/chat_template.h"
#include "modelfile/model_source.h"
#include "scratch.h"
#include "tiny_model.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_write.h"

static const char text[] = "<{role}>\n\"{content}\" é</{role}>\n";
static bb_device *device;

/* A model file with this template, good or not. */
static const char *save_with(const char *name, const char *chat_template) {
    bb_model *m;
    assert_ok(bb_model_create(device, &tiny, 3, &m, &test_error));
    assert_ok(bb_model_copy_chat_template(m, chat_template, &test_error));
    assert_ok(bb_model_save(m, scratch_path(name), &test_error));
    bb_model_free(m);
    return scratch_path(name);
}

static bb_status convert(const char *from, const char *to, const char *format, const char *chat_template) {
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = format;
    options.chat_template = chat_template;
    return bb_export(device, from, to, &options, &test_error);
}

/* NULL: the file has none. */
static void expect_template(const char *path, const char *expected) {
    bb_model *m;
    bb_model_source source;
    assert_ok(bb_model_load_for_inference(device, path, &m, &test_error));
    assert_ok(bb_model_source_open(path, NULL, &source, &test_error));
    if (expected) {
        assert_non_null(bb_model_chat_template(m));
        assert_string_equal(bb_model_chat_template(m), expected);
        assert_string_equal(source.chat_template, expected);
    } else {
        assert_null(bb_model_chat_template(m));
        assert_null(source.chat_template);
    }
    bb_model_source_close(&source);
    bb_model_free(m);
}

static void only_good_templates_are_taken(void **state) {
    (void)state;
    char *longest = calloc(1, BB_MAX_CHAT_TEMPLATE + 2);
    memset(longest, 'a', BB_MAX_CHAT_TEMPLATE);
    memcpy(longest, "{role}{content}", strlen("{role}{content}"));
    static const struct {
        const char *text, *wrong; /* NULL: it is good */
    } cases[] = {{"{role}: {content}\n", NULL},
                 {"{role}{content}.", NULL},
                 {text, NULL},
                 {"", "expected a text with {role} and {content}"},
                 {"{role}: ", "expected a text with {role} and {content}"},
                 {"{content}\n", "expected a text with {role} and {content}"},
                 {"{content} {role}\n", "expected {role} before {content}"},
                 {"{role}: {content}{content}\n", "expected {content} once"},
                 {"{role}: {content}", "expected a text after {content}"},
                 {"{role}: {content}\xff", "expected UTF-8"}};
    bb_model *m;
    assert_ok(bb_model_create(device, &tiny, 3, &m, &test_error));
    assert_null(bb_model_chat_template(m));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(bb_model_set_chat_template(m, NULL, &test_error));
        if (!cases[i].wrong) {
            assert_ok(bb_chat_template_check(cases[i].text, &test_error));
            assert_ok(bb_model_set_chat_template(m, cases[i].text, &test_error));
            assert_string_equal(bb_model_chat_template(m), cases[i].text);
        } else {
            assert_fails(bb_chat_template_check(cases[i].text, &test_error), BB_ERR_ARGUMENT, cases[i].wrong);
            assert_fails(bb_model_set_chat_template(m, cases[i].text, &test_error), BB_ERR_ARGUMENT, cases[i].wrong);
            assert_null(bb_model_chat_template(m));
        }
    }
    assert_ok(bb_chat_template_check(longest, &test_error));
    longest[BB_MAX_CHAT_TEMPLATE] = 'a';
    assert_fails(bb_chat_template_check(longest, &test_error), BB_ERR_ARGUMENT, "expected at most 2048 bytes, found 2049");
    free(longest);
    bb_model_free(m);
}

static void every_format_keeps_it(void **state) {
    (void)state;
    static const struct {
        const char *format, *name;
    } formats[] = {{"packed", "packed"}, {"bitbyte", "bitbyte"}, {"safetensors", "original"}, {"gguf", "a.gguf"}, {"hf", "hf"}};
    save_with("from", text);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char to[64];
        assert_ok(convert(scratch_path("from"), scratch_path(formats[i].name), formats[i].format, NULL));
        expect_template(scratch_path(formats[i].name), text);
        (void)snprintf(to, sizeof to, "%s.other", formats[i].name);
        assert_ok(convert(scratch_path("from"), scratch_path(to), formats[i].format, "{role} {content};"));
        expect_template(scratch_path(to), "{role} {content};");
        assert_ok(convert(scratch_path(formats[i].name), scratch_path("back"), "bitbyte", NULL));
        expect_template(scratch_path("back"), text);
        (void)snprintf(to, sizeof to, "%s.without", formats[i].name);
        assert_ok(convert(scratch_path(formats[i].name), scratch_path(to), formats[i].format, ""));
        expect_template(scratch_path(to), NULL);
    }
    expect_template(save_with("without", NULL), NULL);
}

/* Into a checkpoint, and back: for a model, and for one that is there. */
static void checkpoints_keep_it(void **state) {
    (void)state;
    bb_model *m;
    bb_training_state ts = {.step = 1, .trained_length = 16};
    assert_ok(bb_model_create(device, &tiny, 3, &m, &test_error));
    assert_ok(bb_model_set_chat_template(m, text, &test_error));
    assert_ok(bb_checkpoint_save(scratch_path("checkpoint"), m, NULL, &ts, &test_error));
    expect_template(scratch_path("checkpoint"), text);
    assert_ok(bb_model_set_chat_template(m, NULL, &test_error));
    assert_ok(bb_checkpoint_load(scratch_path("checkpoint"), m, NULL, &ts, &test_error));
    assert_string_equal(bb_model_chat_template(m), text);
    bb_model_free(m);
}

/* It does not keep a model from being read, but nothing copies it. */
static void a_bad_one_in_a_file_is_told_of(void **state) {
    (void)state;
    char bad[512], out[512];
    (void)snprintf(bad, sizeof bad, "%s", save_with("bad", "{content}\n"));
    (void)snprintf(out, sizeof out, "%s", scratch_path("out"));
    expect_template(bad, "{content}\n");
    assert_fails(convert(bad, out, "packed", NULL), BB_ERR_FORMAT, "/bad: chat template: expected a text with {role}");
    assert_fails(convert(bad, out, "bitbyte", NULL), BB_ERR_FORMAT, "/bad: chat template: expected a text with {role}");
    assert_fails(convert(bad, out, "packed", "{role}"), BB_ERR_ARGUMENT, "chat template: expected a text with {role}");
    assert_true(access(out, F_OK) != 0);
    assert_ok(convert(bad, out, "packed", text));
    expect_template(out, text);
    assert_ok(convert(bad, out, "packed", ""));
    expect_template(out, NULL);

    /* GGUF's texts may be any bytes */
    uint8_t *data;
    size_t size;
    bb_model_source source;
    assert_ok(convert(save_with("good", text), scratch_path("a.gguf"), "gguf", NULL));
    assert_ok(bb_file_read_all(scratch_path("a.gguf"), 0, &data, &size, &test_error));
    uint8_t *at = memmem(data, size, text, strlen(text));
    assert_non_null(at);
    at[strlen(text) - 1] = 0xff;
    assert_true(scratch_write(scratch_path("a.gguf"), data, size));
    assert_fails(bb_model_source_open(scratch_path("a.gguf"), NULL, &source, &test_error), BB_ERR_FORMAT,
                 "a.gguf: its chat template: expected UTF-8");
    free(data);
}

static void note(void *user, const char *words) { (void)snprintf(user, 200, "%s", words); }

/* A GGUF file of another program has only Jinja, which nothing here runs. */
static void jinja_alone_is_left_out_with_a_note(void **state) {
    (void)state;
    uint8_t *data;
    size_t size;
    char noted[200] = "";
    bb_export_options options;
    assert_ok(convert(save_with("good", text), scratch_path("a.gguf"), "gguf", NULL));
    assert_ok(bb_file_read_all(scratch_path("a.gguf"), 0, &data, &size, &test_error));
    uint8_t *at = memmem(data, size, "bitbyte.chat_template", strlen("bitbyte.chat_template"));
    assert_non_null(at);
    memcpy(at, "another", strlen("another"));
    assert_true(scratch_write(scratch_path("jinja.gguf"), data, size));
    free(data);
    bb_export_options_default(&options);
    options.format = "bitbyte";
    options.on_notice = note;
    options.user = noted;
    assert_ok(bb_export(device, scratch_path("jinja.gguf"), scratch_path("out"), &options, &test_error));
    assert_non_null(strstr(noted, "Jinja"));
    expect_template(scratch_path("out"), NULL);
}

static void jinja_says_the_same(void **state) {
    (void)state;
    static const struct {
        const char *text, *jinja;
    } cases[] = {{"{role}: {content}\n",
                  "{% for message in messages %}{{ message['role'] + \": \" + message['content'] + \"\\n\" }}{% endfor %}"
                  "{% if add_generation_prompt %}{{ \"assistant: \" }}{% endif %}"},
                 {text, "{% for message in messages %}{{ \"<\" + message['role'] + \">\\n\\\"\" + message['content'] + \"\\\" "
                        "é</\" + message['role'] "
                        "+ \">\\n\" }}{% endfor %}{% if add_generation_prompt %}{{ \"<assistant>\\n\\\"\" }}{% endif %}"},
                 {"{role}{role}{content}\\\t\r\x01%}{role}",
                  "{% for message in messages %}{{ message['role'] + message['role'] + message['content'] + "
                  "\"\\\\\\t\\r\\x01%}\" + message['role'] }}"
                  "{% endfor %}{% if add_generation_prompt %}{{ \"assistantassistant\" }}{% endif %}"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *jinja = bb_chat_template_jinja(cases[i].text);
        assert_string_equal(jinja, cases[i].jinja);
        free(jinja);
    }
    bb_tensor_source *source;
    assert_ok(convert(save_with("good", text), scratch_path("a.gguf"), "gguf", NULL));
    assert_ok(bb_tensor_source_open(scratch_path("a.gguf"), &source, &test_error));
    assert_string_equal(bb_tensor_source_metadata(source, "tokenizer.chat_template"), cases[1].jinja);
    bb_tensor_source_close(source);
}

static int open_all(void **state) {
    return scratch_create(state) != 0 || bb_device_open("cpu", 1, &device, &test_error) != BB_OK ? -1 : 0;
}

static int close_all(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_good_templates_are_taken),
                                       cmocka_unit_test(every_format_keeps_it),
                                       cmocka_unit_test(checkpoints_keep_it),
                                       cmocka_unit_test(a_bad_one_in_a_file_is_told_of),
                                       cmocka_unit_test(jinja_alone_is_left_out_with_a_note),
                                       cmocka_unit_test(jinja_says_the_same)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
