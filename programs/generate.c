/* bitbyte generate: continues a prompt, showing each byte as it comes.
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "progress.h"
#include "signals.h"
#include "utf8_out.h"

static struct {
    bb_generate_options options;
    bb_device_args device;
    const char *model, *prompt, *prompt_file, *metrics_json;
    int kv_cache;
    int64_t seed;
    bool metrics, echo, no_echo;
} args;

/* clang-format off: a table is read by rows */
static const char *const kv_choices[] = {[BB_KV_INT8] = "int8", [BB_KV_F32] = "f32", NULL};

static bb_cli_option options[] = {
    {.help = "What is continued"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .target = &args.model,
     .value = "MODEL",
     .position = 1,
     .required = true,
     .help = "model file, checkpoint, or run directory (its newest checkpoint)"},
    {.name = "prompt",
     .type = BB_CLI_STRING,
     .target = &args.prompt,
     .value = "TEXT",
     .position = 2,
     .help = "what it goes on from, as it stands",
     .default_text = "empty"},
    {.name = "prompt_file",
     .type = BB_CLI_STRING,
     .target = &args.prompt_file,
     .value = "F",
     .help = "read it from a file, every byte of it; - is standard input"},
    {.name = "max_new_bytes",
     .type = BB_CLI_INT64,
     .target = &args.options.max_new_bytes,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes to write"},
    {.name = "context_length",
     .type = BB_CLI_INT,
     .target = &args.options.context_length,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes that the model sees at once; when they are full the older half is dropped, so that writing can go on for "
             "ever in the same memory",
     .default_text = "0: the length it was trained on"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .target = &args.kv_cache,
     .choices = kv_choices,
     .help = "what the model keeps of those bytes: int8 is a quarter of f32, and faster the longer the context"},
    {.help = "How bytes are chosen"},
    {.name = "temperature",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.temperature,
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "below 1 safer, above 1 wilder; 0 always takes the likeliest byte"},
    {.name = "top_k",
     .type = BB_CLI_INT,
     .target = &args.options.top_k,
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 256),
     .help = "choose among the N likeliest bytes only; 0: all"},
    {.name = "top_p",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.top_p,
     .value = "X",
     .range = BB_CLI_ABOVE_TO(0, 1),
     .help = "choose among the likeliest bytes that together have this probability; 1: all"},
    {.name = "seed",
     .type = BB_CLI_INT64,
     .target = &args.seed,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "same seed, same text"},
    {.help = "Output and machine"},
    {.name = "echo",
     .type = BB_CLI_FLAG,
     .target = &args.echo,
     .help = "write the prompt first, also where the output is no terminal (on a terminal it is shown dimmed anyway)"},
    {.name = "no_echo", .type = BB_CLI_FLAG, .target = &args.no_echo, .help = "do not show the prompt on a terminal either"},
    {.name = "metrics",
     .type = BB_CLI_FLAG,
     .target = &args.metrics,
     .help = "speed, and the model's own bits per byte of what it wrote, on standard error"},
    {.name = "metrics_json",
     .type = BB_CLI_STRING,
     .target = &args.metrics_json,
     .value = "F",
     .help = "the same as a JSON file"},
    BB_DEVICE_ROWS(args.device),
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "generate",
    .summary = "let a model continue a prompt. Bytes go to standard output as they come, unchanged; on a terminal only whole "
               "UTF-8 characters are shown, and what is none as \xEF\xBF\xBD.",
    .usage = "MODEL [--prompt TEXT | --prompt_file F] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte generate runs/small --prompt 'In the beginning ' --max_new_bytes 1000\n"
                "  bitbyte generate runs/small --temperature 0 --prompt_file - <start.txt >continued.txt\n"
                "  bitbyte generate runs/small --prompt 'Once' --echo --metrics --seed 7 | tee text.txt\n",
};

static bool on_byte(void *user, uint8_t byte) {
    bb_utf8_out_byte(user, byte);
    fflush(stdout);
    return !*bb_signals_stop() && !ferror(stdout);
}

static bb_status read_prompt(uint8_t **prompt, size_t *length, bb_error *err) {
    *prompt = NULL;
    *length = 0;
    if (!args.prompt_file) {
        *length = args.prompt ? strlen(args.prompt) : 0;
        *prompt = (uint8_t *)strdup(args.prompt ? args.prompt : "");
        if (*prompt) return BB_OK;
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for the prompt");
        return err->code;
    }
    bool standard_input = strcmp(args.prompt_file, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(args.prompt_file, "rb");
    size_t room = 0;
    err->code = BB_OK;
    while (file && !feof(file) && !ferror(file)) {
        if (*length == room) {
            room = room ? 2 * room : 65536;
            uint8_t *larger = realloc(*prompt, room);
            if (!larger) {
                err->code = BB_ERR_MEMORY;
                snprintf(err->message, sizeof err->message, "%s: out of memory for the prompt", args.prompt_file);
                break;
            }
            *prompt = larger;
        }
        *length += fread(*prompt + *length, 1, room - *length, file);
    }
    if (!file || ferror(file)) {
        err->code = BB_ERR_IO;
        snprintf(err->message, sizeof err->message, "%s: cannot read the prompt: %s", args.prompt_file, strerror(errno));
    }
    if (file && !standard_input) fclose(file);
    return err->code;
}

static void show_prompt(bb_utf8_out *text, const uint8_t *prompt, size_t length, bool terminal) {
    if (length == 0) return;
    if (terminal) fputs("\033[2m", stdout);
    for (size_t i = 0; i < length; i++) bb_utf8_out_byte(text, prompt[i]);
    if (terminal) fputs("\033[0m", stdout);
    fflush(stdout);
}

typedef struct outcome {
    bb_generate_metrics metrics;
    double bytes_per_second, bpb;
    int64_t invalid;
} outcome;

static bb_status write_metrics(const char *model_path, const outcome *o, bb_error *err) {
    json_t *json = json_pack(
        "{s:o,s:I,s:f,s:i,s:f,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:I}", "model", json_string_nocheck(model_path), "seed",
        (json_int_t)args.seed, "temperature", args.options.temperature, "top_k", args.options.top_k, "top_p",
        args.options.top_p, "prompt_bytes", (json_int_t)o->metrics.prompt_bytes, "new_bytes", (json_int_t)o->metrics.new_bytes,
        "context_restarts", (json_int_t)o->metrics.context_restarts, "prompt_seconds", o->metrics.prompt_seconds,
        "decode_seconds", o->metrics.decode_seconds, "first_byte_seconds", o->metrics.first_byte_seconds, "bytes_per_s",
        o->bytes_per_second, "mean_logprob", o->metrics.mean_logprob, "bpb", o->bpb, "invalid_utf8", (json_int_t)o->invalid);
    char *text = json ? bb_cli_json_text(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    FILE *file = text ? fopen(args.metrics_json, "w") : NULL;
    bool good = file && fprintf(file, "%s\n", text) > 0;
    if (file && fclose(file) != 0) good = false;
    free(text);
    if (good) return BB_OK;
    err->code = BB_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: cannot write the metrics: %s", args.metrics_json, strerror(errno));
    return err->code;
}

static bb_status report(const char *model_path, const outcome *o, bb_error *err) {
    const bb_generate_metrics *m = &o->metrics;
    if (args.metrics)
        fprintf(stderr,
                "prompt    %lld bytes in %s\nfirst     byte after %s\nwrote     %lld bytes in %s: %.1f bytes/s\n"
                "likely    %.4f bits per byte by the model itself\nrestarts  %lld (full context, older half dropped)\n"
                "invalid   %lld places that are not UTF-8\n",
                (long long)m->prompt_bytes, bb_text_duration(m->prompt_seconds).s, bb_text_duration(m->first_byte_seconds).s,
                (long long)m->new_bytes, bb_text_duration(m->decode_seconds).s, o->bytes_per_second, o->bpb,
                (long long)m->context_restarts, (long long)o->invalid);
    return args.metrics_json ? write_metrics(model_path, o, err) : BB_OK;
}

static bb_status generate(bb_model *model, const char *model_path, const uint8_t *prompt, size_t length, bb_error *err) {
    bool terminal = isatty(STDOUT_FILENO) == 1;
    int64_t context = args.options.context_length ? args.options.context_length : bb_model_trained_length(model);
    if ((int64_t)length + args.options.max_new_bytes > context)
        fprintf(stderr,
                "note: %zu bytes of prompt and %lld new ones pass the context of %lld: each time it is full, its older half is "
                "forgotten\n",
                length, (long long)args.options.max_new_bytes, (long long)context);
    bb_utf8_out text;
    bb_utf8_out_open(&text, stdout, !terminal);
    if (args.echo || (terminal && !args.no_echo)) show_prompt(&text, prompt, length, terminal);
    text.invalid = 0;
    args.options.kv_cache = (bb_kv_type)args.kv_cache;
    args.options.on_byte = on_byte;
    args.options.user = &text;
    args.options.seed = (uint64_t)args.seed;
    outcome o = {.bpb = 0};
    bb_status status = bb_generate(model, prompt, length, &args.options, &o.metrics, err);
    bb_utf8_out_end(&text);
    if (terminal) fputc('\n', stdout);
    fflush(stdout);
    if (status != BB_OK) return status;
    o.invalid = text.invalid;
    o.bpb = bb_bits_per_byte(-o.metrics.mean_logprob);
    if (o.metrics.decode_seconds > 0) o.bytes_per_second = (double)o.metrics.new_bytes / o.metrics.decode_seconds;
    return report(model_path, &o, err);
}

int bb_cmd_generate(int argc, char **argv) {
    bb_generate_options_default(&args.options);
    int exit_status = bb_cli_parse(&command, argc, argv);
    if (exit_status != BB_CLI_GO_ON) return exit_status;
    if (args.prompt && args.prompt_file) return bb_cli_usage_error(&command, "give --prompt or --prompt_file, not both");
    if (args.echo && args.no_echo) return bb_cli_usage_error(&command, "give --echo or --no_echo, not both");

    char path[4096];
    bb_error err;
    bb_device *device = NULL;
    bb_model *model = NULL;
    uint8_t *prompt = NULL;
    size_t length = 0;
    bb_status status = bb_device_args_open(&args.device, &device, &err);
    if (status == BB_OK) status = bb_model_open(device, args.model, path, sizeof path, &model, &err);
    if (status == BB_OK) status = read_prompt(&prompt, &length, &err);
    if (status == BB_OK) {
        bb_signals_install(NULL, NULL, NULL);
        status = generate(model, path, prompt, length, &err);
    }
    exit_status = bb_signals_exit_status();
    if (status != BB_OK && status != BB_ERR_INTERRUPTED) exit_status = bb_cli_fail(&command, &err);
    free(prompt);
    bb_model_free(model);
    bb_device_close(device);
    return exit_status;
}
