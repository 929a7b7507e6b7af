// SPDX-License-Identifier: MIT
#include "modelfile/model_card.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "modelfile/export_hf_text.h"

enum { MAX_METRICS_BYTES = 1 << 28, MAX_DATA_FILES = 100 };

static json_t *metadata(const bb_exporter *e, const char *key) {
    const char *text = bb_tensor_source_metadata(e->source.source, key);
    return text ? json_loads(text, 0, NULL) : NULL;
}

/* Writes a caller's text as YAML, which accepts JSON strings. */
static void put_yaml(FILE *f, const char *key, const char *text) {
    json_t *json = text ? json_string(text) : NULL;
    char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
    if (quoted) fprintf(f, "%s: %s\n", key, quoted);
    free(quoted);
    json_decref(json);
}

static void put_head(FILE *f, const bb_exporter *e, const char *library, const char *tag) {
    const bb_export_options *o = e->options;
    fprintf(f, "---\nlibrary_name: %s\npipeline_tag: text-generation\ntags:\n- bitbyte\n- ternary\n- byte-level\n", library);
    if (tag) fprintf(f, "- %s\n", tag);
    put_yaml(f, "license", o->license);
    fprintf(f, "---\n\n# %s\n\n", o->name ? o->name : "BitByte model");
    if (o->description) fprintf(f, "%s\n\n", o->description);
}

static void put_architecture(FILE *f, const bb_exporter *e) {
    const bb_config *c = &e->source.config;
    fprintf(f,
            "A byte-level language model: its 256 tokens are the bytes of UTF-8 text. All weights of a linear layer are -g, 0 "
            "or g, with one\ng a matrix. Architecture: Llama, head tied to the embedding.\n\n"
            "| | |\n|---|---|\n| layers | %d |\n| width | %d |\n| attention heads | %d |\n| key/value heads | %d |\n"
            "| feed-forward width | %d |\n| parameters | %lld |\n| weight type | %s |\n| inputs of linear layers | %s |\n"
            "| trained on sequences of | %d bytes |\n",
            c->n_layer, c->d_model, c->n_head, c->n_kv_head, c->d_ff, (long long)e->table.total, e->type,
            c->act_quant ? "int8, one scale a token" : "not quantized", e->source.trained_length);
}

/* ---- training ---------------------------------------------------------------------------------------------------------- */

/* Finds the bits per byte of the last validation up to a step, in the metrics beside the checkpoint. */
static bool find_validation(const bb_exporter *e, json_int_t step, double *bpb) {
    const char *path = bb_tensor_source_path(e->source.source), *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash + 1 - path)) : strdup("."), *name = NULL;
    uint8_t *text = NULL;
    size_t size = 0;
    bool found = false;
    bb_error ignored;
    if (folder) name = bb_file_join(folder, "metrics.jsonl");
    if (name && bb_file_read_all(name, MAX_METRICS_BYTES, &text, &size, &ignored) == BB_OK)
        for (char *line = (char *)text, *end; line && *line; line = end ? end + 1 : NULL) {
            end = strchr(line, '\n');
            json_t *json = json_loadb(line, end ? (size_t)(end - line) : strlen(line), 0, NULL);
            const json_t *value = json_object_get(json, "val_bpb");
            if (json_is_number(value) && json_integer_value(json_object_get(json, "step")) <= step) {
                *bpb = json_number_value(value);
                found = true;
            }
            json_decref(json);
        }
    free(text);
    free(name);
    free(folder);
    return found;
}

static void put_data(FILE *f, const json_t *data) {
    const json_t *files = json_object_get(data, "files"), *file;
    size_t i;
    if (!json_array_size(files)) return;
    fprintf(f, "\n| trained on | bytes | XXH3-64 |\n|---|---|---|\n");
    json_array_foreach(files, i, file) {
        const char *whole = json_string_value(json_object_get(file, "xxh3"));
        const char *sample = json_string_value(json_object_get(file, "sample_xxh3"));
        if (i == MAX_DATA_FILES) {
            fprintf(f, "| %zu more | | |\n", json_array_size(files) - i);
            break;
        }
        fprintf(f, "| `%s` | %" JSON_INTEGER_FORMAT " | %s%s |\n", json_string_value(json_object_get(file, "name")),
                json_integer_value(json_object_get(file, "bytes")),
                whole    ? whole
                : sample ? sample
                         : "",
                !whole && sample ? " (of blocks)" : "");
    }
}

/* Writes the command with the options that affect the result; options without a value are booleans, or not set (null). */
static void put_command(FILE *f, const json_t *options) {
    const char *key;
    json_t *value;
    if (!json_object_size(options)) return;
    fprintf(f, "\n```sh\nbitbyte train --data DATA");
    json_object_foreach((json_t *)options, key, value) {
        bool bare = json_is_boolean(value) || json_is_null(value);
        char *text = bare ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        if (json_is_string(value))
            fprintf(f, " --%s %s", key, json_string_value(value));
        else if (text && !(json_is_integer(value) && json_integer_value(value) < 0)) /* -1: not set */
            fprintf(f, " --%s %s", key, text);
        else if (json_is_true(value))
            fprintf(f, " --%s", key);
        free(text);
    }
    fprintf(f, "\n```\n");
}

static void put_training(FILE *f, const bb_exporter *e) {
    json_t *state = metadata(e, "training_state"), *data = metadata(e, "data"), *options = metadata(e, "run_config");
    double bpb = 0;
    if (state) {
        json_int_t step = json_integer_value(json_object_get(state, "step"));
        fprintf(f, "| steps | %" JSON_INTEGER_FORMAT " |\n| bytes trained on | %" JSON_INTEGER_FORMAT " |\n", step,
                json_integer_value(json_object_get(state, "bytes_seen")));
        if (find_validation(e, step, &bpb)) fprintf(f, "| held-out bits per byte | %.4f |\n", bpb);
        put_data(f, data);
        put_command(f, options);
    }
    json_decref(state);
    json_decref(data);
    json_decref(options);
}

/* ---- cards ------------------------------------------------------------------------------------------------------------- */

static const char transformers_use[] = "\n```python\n"
                                       "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                                       "model = AutoModelForCausalLM.from_pretrained(\".\")\n"
                                       "tokenizer = AutoTokenizer.from_pretrained(\".\")\n"
                                       "inputs = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n"
                                       "print(tokenizer.decode(model.generate(**inputs)[0]))\n"
                                       "```\n";

static const char activations[] = "\nThe linear layers were trained with inputs that are rounded to int8, one scale a token. "
                                  "transformers does not do that by "
                                  "itself;\nthis adds it, and gives BitByte's logits:\n\n"
                                  "```python\n"
                                  "def int8(module, inputs):\n"
                                  "    x = inputs[0]\n"
                                  "    scale = x.abs().amax(-1, keepdim=True) / 127\n"
                                  "    scale = scale.clamp(min=1e-8)\n"
                                  "    return ((x / scale).round().clamp(-127, 127) * scale,)\n\n"
                                  "for name, module in model.named_modules():\n"
                                  "    if name.endswith(\"_proj\"):\n"
                                  "        module.register_forward_pre_hook(int8)\n"
                                  "```\n";

static char *make_card(const bb_exporter *e, const char *library, const char *tag,
                       void (*put_use)(FILE *f, const bb_exporter *e)) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    put_head(f, e, library, tag);
    put_architecture(f, e);
    put_training(f, e);
    put_use(f, e);
    bool failed = ferror(f) != 0;
    if (fclose(f) == 0 && !failed) return text;
    free(text);
    return NULL;
}

static void put_hf_use(FILE *f, const bb_exporter *e) {
    fprintf(f, "%s%s\nWritten by `bitbyte convert MODEL DIR/ --type %s`.\n", transformers_use,
            e->source.config.act_quant && !bb_hf_is_bitnet(e) ? activations : "", e->type);
}

static void put_gguf_use(FILE *f, const bb_exporter *e) {
    const char *slash = strrchr(e->path, '/');
    if (e->source.config.act_quant)
        fprintf(
            f,
            "\nThe linear layers were trained with inputs that are rounded to int8, one scale a token; llama.cpp rounds them "
            "in blocks or not at\nall, which moves logits by a few thousandths.\n");
    fprintf(f, "\nWritten by `bitbyte convert MODEL %s --type %s`.\n", slash ? slash + 1 : e->path, e->type);
}

char *bb_model_card_hf(const bb_exporter *e) { return make_card(e, "transformers", NULL, put_hf_use); }
char *bb_model_card_gguf(const bb_exporter *e) { return make_card(e, "gguf", "gguf", put_gguf_use); }
