// SPDX-License-Identifier: MIT
/* Options and code shared by several commands. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "json_out.h"
#include "progress.h"

enum { FURTHER_CARDS = 7 };
const char *bb_device_choices[BB_NAMED_DEVICES + FURTHER_CARDS + 1];
enum { ARCH_LLAMA, ARCH_PLUS };
const char *const bb_arch_choices[] = {[ARCH_LLAMA] = "llama", [ARCH_PLUS] = "plus", NULL};
const char *const bb_ste_choices[] = {[BB_STE_IDENTITY] = "identity", [BB_STE_CLIPPED] = "clipped", NULL};
const char *const bb_optim_choices[] = {
    [BB_OPTIM_ADAMW] = "adamw", [BB_OPTIM_ADAMW8BIT] = "adamw8bit", [BB_OPTIM_MUON] = "muon", NULL};
const char *const bb_kv_choices[] = {[BB_KV_INT6] = "int6", [BB_KV_INT8] = "int8", [BB_KV_F32] = "f32", NULL};

void bb_device_choices_init(void) {
    static const char *const further[] = {"cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"};
    int count = 0;
    while (count < BB_NAMED_DEVICES && (bb_device_choices[count] = bb_device_known(count, NULL))) count++;
    for (int i = 0; i < BB_CLI_COUNT(further); i++) bb_device_choices[count++] = further[i];
}

static const bb_cli_option device_options[] = {
    {.name = "threads",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_device_args, threads),
     .value = "N",
     .help = "number of threads; does not change results",
     .range = BB_CLI_FROM_TO(0, 1024),
     .default_text = "0: OMP_NUM_THREADS, else all processors available to the process",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "device",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_device_args, device),
     .choices = bb_device_choices,
     .listed_choices = BB_NAMED_DEVICES,
     .help = "cpu: fast; cuda: an NVIDIA card, cuda:1 the second one; ref: slow scalar reference implementation",
     .saved = BB_CLI_SAVED_FREE}};
static const bb_cli_option model_options[] = {
    {.name = "n_layer",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, n_layer),
     .value = "N",
     .help = "number of transformer blocks",
     .range = BB_CLI_AT_LEAST(1)},
    {.name = "d_model",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, d_model),
     .value = "N",
     .help = "model width; a multiple of n_head",
     .range = BB_CLI_AT_LEAST(1)},
    {.name = "n_head",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, n_head),
     .value = "N",
     .help = "number of attention heads; d_model / n_head must be even",
     .range = BB_CLI_AT_LEAST(1)},
    {.name = "n_kv_head",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, n_kv_head),
     .value = "N",
     .help = "key/value heads; must divide n_head; fewer make the KV cache smaller",
     .range = BB_CLI_AT_LEAST(1),
     .default_text = "n_head"},
    {.name = "d_ff",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, d_ff),
     .value = "N",
     .help = "MLP hidden size",
     .range = BB_CLI_AT_LEAST(1)},
    {.name = "rope_base",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_model_args, rope_base),
     .value = "X",
     .help = "base of the rotary position embedding",
     .range = BB_CLI_ABOVE(0)},
    {.name = "arch",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_model_args, arch),
     .choices = bb_arch_choices,
     .help = "llama: exports to Hugging Face and llama.cpp. plus: also learns embeddings of two, three and four bytes: learns "
             "more from the first megabytes, but the file is larger and only BitByte can run it"},
    {.name = "ngram_max",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, ngram_max),
     .value = "N",
     .help = "with --arch plus, embeddings for two to N bytes",
     .range = BB_CLI_FROM_TO(2, 7)},
    {.name = "ngram_bits",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_model_args, ngram_bits),
     .value = "N",
     .help = "with --arch plus, 2^N embeddings for each number of bytes, selected by a hash",
     .range = BB_CLI_FROM_TO(4, 24)},
    {.name = "no_act_quant",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_model_args, no_act_quant),
     .help = "do not quantize the inputs of ternary layers to int8; device cpu still rounds them to bf16"},
    {.name = "ste",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_model_args, ste),
     .choices = bb_ste_choices,
     .help = "straight-through gradient of ternary weights: identity, or zero where the weight was clipped"},
    {.name = "dense",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_model_args, dense),
     .help = "the dense twin, to measure what ternary weights cost: the same model with f32 weights and inputs in its linear "
             "layers; slow, and only eval and generate can use it"}};
const bb_cli_group bb_device_group = {device_options, BB_CLI_COUNT(device_options)};
const bb_cli_group bb_model_group = {model_options, BB_CLI_COUNT(model_options)};

void bb_device_args_notes(const bb_cli *cli, const bb_device_args *args) {
    if (strcmp(bb_device_choices[args->device], "ref") == 0) bb_cli_unused(cli, "threads", "--device ref has one thread");
    if (strncmp(bb_device_choices[args->device], "cuda", 4) == 0)
        bb_cli_unused(cli, "threads", "--device cuda computes on the card");
}

bb_status bb_device_args_open(const bb_device_args *args, bb_dist *dist, bb_device **out, bb_error *err) {
    const char *name = bb_device_choices[args->device];
    return dist ? bb_device_open_for_rank(name, args->threads, dist, out, err) : bb_device_open(name, args->threads, out, err);
}

void bb_model_args_default(bb_model_args *args) {
    bb_config config;
    bb_config_default(&config);
    *args = (bb_model_args){.n_layer = config.n_layer,
                            .d_model = config.d_model,
                            .n_head = config.n_head,
                            .n_kv_head = 0,
                            .d_ff = config.d_ff,
                            .ngram_max = 4,
                            .ngram_bits = 14,
                            .no_act_quant = !config.act_quant,
                            .ste = (int)config.ste,
                            .rope_base = config.rope_base};
}

void bb_model_args_notes(const bb_cli *cli, const bb_model_args *args) {
    if (args->dense) bb_cli_unused(cli, "no_act_quant", "with --dense, nothing is quantized");
    if (args->dense && args->ste == BB_STE_IDENTITY) bb_cli_unused(cli, "ste", "with --dense, nothing is quantized");
    if (args->arch == ARCH_PLUS) return;
    static const char *const of_plus[] = {"ngram_max", "ngram_bits", "lr_ngram"};
    for (int i = 0; i < BB_CLI_COUNT(of_plus); i++) bb_cli_unused(cli, of_plus[i], "it requires --arch plus");
}

const char *bb_model_args_given_shape(const bb_cli *cli) {
    static const char *const options[] = {"n_layer", "d_model", "n_head", "n_kv_head", "d_ff"};
    for (int i = 0; i < BB_CLI_COUNT(options); i++)
        if (bb_cli_given(cli, options[i])) return options[i];
    return NULL;
}

void bb_model_args_set_shape(bb_model_args *args, const bb_config *shape) {
    args->n_layer = shape->n_layer;
    args->d_model = shape->d_model;
    args->n_head = shape->n_head;
    args->n_kv_head = shape->n_kv_head;
    args->d_ff = shape->d_ff;
}

int bb_model_args_of_size(const bb_cli *cli, bb_model_args *args, const char *size) {
    bb_config shape;
    bb_error err;
    const char *given = bb_model_args_given_shape(cli);
    if (given) return bb_cli_usage_error(cli->command, "give --size or --%s, not both", given);
    if (bb_config_of_size(size, &shape, &err) != BB_OK) return bb_cli_usage_error(cli->command, "--%s", err.message);
    bb_model_args_set_shape(args, &shape);
    return BB_CLI_CONTINUE;
}

int bb_model_args_from_file(const bb_cli *cli, bb_model_args *args, const char *path, const bb_config *file) {
    const struct {
        const char *name;
        int *ours;
        int theirs;
    } sizes[] = {{"n_layer", &args->n_layer, file->n_layer},
                 {"d_model", &args->d_model, file->d_model},
                 {"n_head", &args->n_head, file->n_head},
                 {"n_kv_head", &args->n_kv_head, file->n_kv_head},
                 {"d_ff", &args->d_ff, file->d_ff},
                 {"ngram_max", &args->ngram_max, file->ngram_max ? file->ngram_max : args->ngram_max},
                 {"ngram_bits", &args->ngram_bits, file->ngram_max ? file->ngram_bits : args->ngram_bits}};
    int arch = file->ngram_max ? ARCH_PLUS : ARCH_LLAMA;
    if (bb_cli_given(cli, "arch") && args->arch != arch)
        return bb_cli_usage_error(cli->command, "--arch %s contradicts %s, which has %s", bb_arch_choices[args->arch], path,
                                  bb_arch_choices[arch]);
    args->arch = arch;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (bb_cli_given(cli, sizes[i].name) && *sizes[i].ours != sizes[i].theirs)
            return bb_cli_usage_error(cli->command, "--%s %d contradicts %s, which has %d", sizes[i].name, *sizes[i].ours, path,
                                      sizes[i].theirs);
        *sizes[i].ours = sizes[i].theirs;
    }
    if (bb_cli_given(cli, "rope_base") && (args->rope_base < file->rope_base || args->rope_base > file->rope_base))
        return bb_cli_usage_error(cli->command, "--rope_base %.17g contradicts %s, which has %.17g", args->rope_base, path,
                                  file->rope_base);
    if (args->no_act_quant && file->act_quant)
        return bb_cli_usage_error(cli->command, "--no_act_quant contradicts %s, which was made with activation quantization",
                                  path);
    if (bb_cli_given(cli, "ste") && args->ste != (int)file->ste)
        return bb_cli_usage_error(cli->command, "--ste %s contradicts %s, which has %s", bb_ste_choices[args->ste], path,
                                  bb_ste_choices[file->ste]);
    if (args->dense && !file->dense)
        return bb_cli_usage_error(cli->command, "--dense contradicts %s, which has ternary weights", path);
    args->rope_base = file->rope_base;
    args->dense = file->dense;
    args->no_act_quant = !file->act_quant;
    args->ste = (int)file->ste;
    return BB_CLI_CONTINUE;
}

void bb_model_args_config(const bb_model_args *args, bb_config *out) {
    bb_config_default(out);
    out->n_layer = args->n_layer;
    out->d_model = args->d_model;
    out->n_head = args->n_head;
    out->n_kv_head = args->n_kv_head ? args->n_kv_head : args->n_head;
    out->d_ff = args->d_ff;
    out->rope_base = args->rope_base;
    out->act_quant = !args->no_act_quant && !args->dense;
    out->dense = args->dense;
    out->ste = (bb_ste)args->ste;
    if (args->arch != ARCH_PLUS) return;
    out->ngram_max = args->ngram_max;
    out->ngram_bits = args->ngram_bits;
}

typedef struct search {
    bb_status (*load)(void *user, const char *path, bb_error *err);
    void *user;
    char *path;
    size_t size;
} search;

static bb_status load_path(void *user, const char *path, bb_error *err) {
    search *s = user;
    if ((size_t)snprintf(s->path, s->size, "%s", path) < s->size) return s->load(s->user, path, err);
    err->code = BB_ERR_ARGUMENT;
    snprintf(err->message, sizeof err->message, "the model path is longer than %zu bytes", s->size - 1);
    return err->code;
}

static void report_damaged(void *user, const char *path, const char *reason) {
    (void)user;
    (void)path;
    fprintf(stderr, "note: damaged checkpoint, trying the previous one: %s\n", reason);
}

bb_status bb_model_find(const char *given, bb_status (*load)(void *user, const char *path, bb_error *err), void *user,
                        char *path, size_t size, bb_error *err) {
    struct stat info;
    search s = {.load = load, .user = user, .path = path, .size = size};
    if (stat(given, &info) == 0 && S_ISDIR(info.st_mode) && !bb_is_hf_folder(given))
        return bb_run_latest_valid(given, load_path, report_damaged, &s, err);
    char named[4096];
    bb_status status = bb_run_named_checkpoint(given, named, sizeof named, err);
    return status == BB_OK ? load_path(&s, named, err) : status;
}

static const bb_cli_option import_options[] = {
    {.name = "n_head",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_import_args, n_head),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .default_text = "the model file's",
     .help = "number of attention heads, for files of the PyTorch original that do not store it"}};
const bb_cli_group bb_import_group = {import_options, BB_CLI_COUNT(import_options)};

static void report_notice(void *user, const char *text) {
    (void)user;
    fprintf(stderr, "note: %s\n", text);
}

bb_import_options bb_import_args_options(const bb_import_args *args) {
    return (bb_import_options){.struct_size = sizeof(bb_import_options), .n_head = args->n_head, .on_notice = report_notice};
}

typedef struct loading {
    bb_device *device;
    bb_import_options options;
    bb_model **out;
} loading;

static bb_status load_model(void *user, const char *path, bb_error *err) {
    const loading *l = user;
    return bb_model_import(l->device, path, &l->options, l->out, err);
}

bb_status bb_model_open(bb_device *device, const char *given, const bb_import_args *args, bb_found_model *out, bb_error *err) {
    loading l = {.device = device, .options = bb_import_args_options(args), .out = &out->model};
    l.options.for_inference = true;
    out->model = NULL;
    return bb_model_find(given, load_model, &l, out->path, sizeof out->path, err);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

void bb_memory_line(const bb_memory_estimate *memory, char *out, size_t size) {
    const struct {
        const char *name;
        uint64_t bytes;
    } parts[] = {{"parameters", memory->parameters},
                 {"gradients", memory->gradients},
                 {"optimizer", memory->optimizer},
                 {"quantized weights", memory->quantized_weights},
                 {"activations", memory->activations},
                 {"scratch", memory->scratch},
                 {"gradient sums", memory->reduction},
                 {"checkpoint copy", memory->checkpoint_copy},
                 {"of which in host memory", memory->host_total}};
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts && used < size; i++)
        if (parts[i].bytes)
            used += (size_t)snprintf(out + used, size - used, "%s%s %s", used ? ", " : "", parts[i].name,
                                     bb_text_bytes(parts[i].bytes).s);
}

json_t *bb_memory_json(const bb_memory_estimate *memory) {
    return json_pack("{s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o*},s:{s:I,s:I,s:I}}", "training", "parameters",
                     (json_int_t)memory->parameters, "gradients", (json_int_t)memory->gradients, "optimizer",
                     (json_int_t)memory->optimizer, "quantized_weights", (json_int_t)memory->quantized_weights, "activations",
                     (json_int_t)memory->activations, "scratch", (json_int_t)memory->scratch, "checkpoint_copy",
                     (json_int_t)memory->checkpoint_copy, "total", (json_int_t)memory->total, "host_total",
                     memory->own_memory ? json_integer((json_int_t)memory->host_total) : NULL, "inference", "weights",
                     (json_int_t)memory->inference_weights, "kv_cache", (json_int_t)memory->kv_cache, "total",
                     (json_int_t)memory->inference_total);
}

void bb_json_line(json_t *json) {
    /* Missing output must not look like success. */
    if (bb_json_write(json, stdout)) return;
    fprintf(stderr, "bitbyte: cannot write JSON: out of memory\n");
    exit(BB_EXIT_FAILURE);
}
