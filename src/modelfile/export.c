// SPDX-License-Identifier: MIT
/* Exports a model: finds the format, opens the source, and lets the format write. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/json.h"
#include "core/options.h"
#include "modelfile/chat_template.h"
#include "modelfile/export_formats.h"
#include "modelfile/gguf_names.h"
#include "modelfile/output.h"

static const bb_export_format *const formats[] = {&bb_export_packed, &bb_export_bitbyte, &bb_export_safetensors,
                                                  &bb_export_gguf, &bb_export_hf};

const char *bb_export_format_name(int index) {
    return index >= 0 && index < (int)(sizeof formats / sizeof *formats) ? formats[index]->name : NULL;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcasecmp(text + n - m, end) == 0;
}

const char *bb_export_format_for(const char *out) {
    struct stat st;
    if (!out) return NULL;
    if (ends_with(out, ".gguf")) return bb_export_gguf.name;
    return ends_with(out, "/") || (stat(out, &st) == 0 && S_ISDIR(st.st_mode)) ? bb_export_hf.name : NULL;
}

static bb_status find_format(const char *name, const bb_export_format **out, bb_error *err) {
    char known[256] = "";
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i]->name, name) == 0) {
            *out = formats[i];
            return BB_OK;
        }
        size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", formats[i]->name);
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "unknown format '%s'; the formats are %s", name, known);
}

static bb_status find_type(const bb_export_format *format, const char *type, const char **out, bb_error *err) {
    char known[256] = "";
    *out = format->types ? format->types[0] : NULL;
    if (!type) return BB_OK;
    if (!format->types) return bb_fail(err, BB_ERR_ARGUMENT, "format %s has only one type; omit type '%s'", format->name, type);
    for (const char *const *t = format->types; *t; t++) {
        if (strcmp(*t, type) == 0) {
            *out = *t;
            return BB_OK;
        }
        size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, "%s%s", t == format->types ? "" : ", ", *t);
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "format %s has no type '%s'; it has %s", format->name, type, known);
}

/* Refuses texts that the format cannot hold, and texts that are not UTF-8, which these formats require. */
static bb_status check_texts(const bb_export_format *format, const bb_export_options *o, bb_error *err) {
    const struct {
        const char *option, *text;
    } texts[] = {{"name", o->name}, {"description", o->description}, {"license", o->license}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i].text) continue;
        if (!format->describes)
            return bb_fail(err, BB_ERR_ARGUMENT, "format %s cannot hold a %s; omit it, or choose another format", format->name,
                           texts[i].option);
        if (!bb_json_is_utf8(texts[i].text)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: expected UTF-8 text", texts[i].option);
    }
    return BB_OK;
}

BB_OPTIONS_DEFAULTS(bb_export_options);

static bb_status choose_chat_template(bb_exporter *e, const char *model, bb_error *err) {
    const char *given = e->options->chat_template;
    e->chat_template = !given ? e->source.chat_template : *given ? given : NULL;
    if (!given && !e->chat_template && bb_tensor_source_metadata(e->source.source, BB_GGUF_JINJA_KEY) && e->options->on_notice)
        e->options->on_notice(e->options->user, "the model's chat template is written in Jinja and is omitted");
    bb_status status = e->chat_template ? bb_chat_template_check(e->chat_template, err) : BB_OK;
    return status == BB_OK || given ? status : bb_fail_prefix(err, BB_ERR_FORMAT, "%s", model);
}

static bb_status export_source(bb_device *device, const char *model, const bb_export_format *format, bb_exporter *e,
                               bb_error *err) {
    const bb_export_options *o = e->options;
    bb_import_options import;
    bb_import_options_default(&import);
    import.n_head = o->n_head;
    import.for_inference = true;
    import.on_notice = o->on_notice;
    import.user = o->user;
    BB_TRY(bb_model_source_open(model, &import, &e->source, err));
    BB_TRY(choose_chat_template(e, model, err));
    if (e->source.config.dense && format != &bb_export_bitbyte)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: the model was trained with --dense and has no ternary weights; only format %s can hold it", model,
                       bb_export_bitbyte.name);
    if (e->source.config.ngram_max && !format->ngrams)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: the model has n-gram embeddings (--arch plus), which format %s cannot hold; packed and bitbyte can",
                       model, format->name);
    if (format->masters) {
        BB_TRY(bb_param_table_create(&e->source.config, false, &e->table, err));
        BB_TRY(bb_tensor_source_check_metadata(e->source.source, err));
    } else {
        BB_TRY(bb_model_load_source(device, &e->source, &import, &e->model, err));
        BB_TRY(bb_model_copy_chat_template(e->model, e->chat_template, err));
        BB_TRY(bb_param_table_create(&e->source.config, true, &e->table, err));
    }
    e->bytes_total = e->table.total * (int64_t)sizeof(float);
    BB_TRY(format->write(e, err));
    bb_latent_weights_notify(&e->latent, &e->source, o->on_notice, o->user);
    return BB_OK;
}

bb_status bb_export(bb_device *device, const char *model, const char *out, const bb_export_options *given, bb_error *err) {
    BB_REQUIRE("device, model, out, options", device, model, out, given);
    BB_OPTIONS_READ(bb_export_options, options, given);
    BB_DEVICE_SCOPE(device);
    const bb_export_format *format = NULL;
    const char *asked = options->format ? options->format : bb_export_format_for(out);
    bb_exporter e = {.path = out, .options = options};
    BB_TRY(find_format(asked ? asked : bb_export_packed.name, &format, err));
    BB_TRY(find_type(format, options->type, &e.type, err));
    BB_TRY(check_texts(format, options, err));
    BB_TRY(bb_output_check_same(model, out, err));
    bb_status status = export_source(device, model, format, &e, err);
    bb_param_table_free(&e.table);
    bb_model_free(e.model);
    if (e.source.source) bb_model_source_close(&e.source);
    return status;
}
