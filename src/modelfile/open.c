// SPDX-License-Identifier: MIT
/* Opens model files of any format, recognized first by their first bytes, then by their tensors' names. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "core/options.h"
#include "modelfile/chat_template.h"
#include "modelfile/gguf.h"
#include "modelfile/hf.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"
#include "modelfile/torch_pt.h"

bb_status bb_tensor_source_open_input(bb_input *input, bb_tensor_source **out, bb_error *err) {
    uint8_t head[16] = {0};
    size_t size = input->size < sizeof head ? (size_t)input->size : sizeof head;
    *out = NULL;
    bb_status status = bb_input_read(input, 0, head, size, err);
    if (status != BB_OK) {
        bb_input_close(input);
        return status;
    }
    if (bb_gguf_matches(head, size)) return bb_gguf_open_input(input, out, err);
    return bb_torch_pt_matches(head, size) ? bb_torch_pt_open_input(input, out, err)
                                           : bb_safetensors_open_input(input, out, err);
}

/* Opens the folder that contains a JSON file. */
static bb_status open_folder_of(const char *path, bb_tensor_source **out, bb_error *err) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path);
    bb_status status = bb_hf_open_folder(folder, out, err);
    free(folder);
    return status;
}

bb_status bb_tensor_source_open(const char *path, bb_tensor_source **out, bb_error *err) {
    bb_input input;
    struct stat st;
    uint8_t head[16];
    *out = NULL;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return bb_hf_open_folder(path, out, err);
    bb_status status = bb_input_open_file(path, &input, err);
    size_t size = status == BB_OK && input.size < sizeof head ? (size_t)input.size : sizeof head;
    if (status == BB_OK) status = bb_input_read(&input, 0, head, size, err);
    if (status == BB_OK && !bb_hf_matches(head, size)) return bb_tensor_source_open_input(&input, out, err);
    bb_input_close(&input);
    return status == BB_OK ? open_folder_of(path, out, err) : status;
}

static const bb_model_layout *const layouts[] = {&bb_layout_gguf, &bb_layout_hf, &bb_layout_bitbyte, &bb_layout_packed,
                                                 &bb_layout_original};

bb_status bb_model_source_from(bb_tensor_source *source, const bb_import_options *options, bb_model_source *out,
                               bb_error *err) {
    static const bb_import_options none = {0};
    *out = (bb_model_source){.source = source, .layout = &bb_layout_bitbyte};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i]->matches(source)) {
            out->layout = layouts[i];
            break;
        }
    out->trained_length = bb_layout_trained_length(source, out->layout->trained_length_key);
    out->chat_template =
        bb_tensor_source_metadata(source, out->layout->chat_template_key ? out->layout->chat_template_key : BB_CHAT_TEMPLATE);
    if (out->chat_template && !bb_json_is_utf8(out->chat_template)) /* no file of ours could hold it */
        return bb_fail(err, BB_ERR_FORMAT, "%s: its chat template: expected UTF-8 text", bb_tensor_source_path(source));
    BB_TRY(out->layout->read_config(source, options ? options : &none, &out->config, err));
    if (!options || !options->n_head || options->n_head == out->config.n_head) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: --n_head %d contradicts the file, which has %d", bb_tensor_source_path(source),
                   options->n_head, out->config.n_head);
}

bb_status bb_model_source_open(const char *path, const bb_import_options *options, bb_model_source *out, bb_error *err) {
    bb_tensor_source *source;
    *out = (bb_model_source){0};
    BB_TRY(bb_tensor_source_open(path, &source, err));
    bb_status status = bb_model_source_from(source, options, out, err);
    if (status != BB_OK) bb_model_source_close(out);
    return status;
}

void bb_model_source_close(bb_model_source *w) {
    bb_tensor_source_close(w->source);
    *w = (bb_model_source){0};
}

bb_status bb_config_load(const char *path, const bb_import_options *given, bb_config *out, int *trained_length, bb_error *err) {
    BB_REQUIRE("path, out", path, out);
    BB_OPTIONS_READ(bb_import_options, options, given);
    bb_model_source w;
    BB_TRY(bb_model_source_open(path, options, &w, err));
    *out = w.config;
    if (trained_length) *trained_length = w.trained_length;
    bb_model_source_close(&w);
    return BB_OK;
}
