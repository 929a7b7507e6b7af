// SPDX-License-Identifier: MIT
/* bitbyte compress and decompress: files and pipes, with zstd's command-line conventions. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "compress_options.h"
#include "json_out.h"
#include "progress.h"
#include "replacement.h"
#include "signals.h"

static const char suffix[] = ".bby";
enum { PATH_BYTES = 4096, CHUNK = 1 << 18 };

typedef struct job {
    const bb_compress_args *args;
    const bb_cli_command *command;
    bb_model *model;
    bb_compress_options options;
    bb_progress progress;
    /* the current file */
    const char *in_path;
    int in, out; /* out -1: none */
    int write_errno;
    double in_total, in_done, out_done, plain_done, start;
} job;

static bb_status fail_path(bb_error *err, const char *path, const char *what) {
    err->code = BB_ERR_IO;
    snprintf(err->message, sizeof err->message, "%.800s: cannot %s: %s", path, what, strerror(errno));
    return BB_ERR_IO;
}

static bb_status refuse(bb_error *err, const char *path, const char *why) {
    err->code = BB_ERR_IO;
    snprintf(err->message, sizeof err->message, "%.800s: %s", path, why);
    return BB_ERR_IO;
}

static bool on_output(void *user, const uint8_t *bytes, size_t size) {
    job *j = user;
    j->out_done += (double)size;
    while (j->out >= 0 && size > 0) {
        ssize_t n = write(j->out, bytes, size);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && bb_signals_wait(j->out, POLLOUT)))) continue;
        if (n < 0) {
            j->write_errno = errno;
            return false;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

static void on_progress(void *user, int64_t bytes_done) {
    job *j = user;
    double done = j->args->decompress ? j->in_done : (double)bytes_done;
    j->plain_done = (double)bytes_done;
    if (j->args->quiet) return;
    const bb_progress_bar bar = {.what = j->args->decompress ? "decompressing" : "compressing",
                                 .done = done,
                                 .total = j->in_total,
                                 .bytes = (double)bytes_done,
                                 .detail = j->in_path};
    bb_progress_show(&j->progress, &bar);
}

/* ---- from one descriptor to the other ------------------------------------------------------------------------------------ */

/* The functions of the compressor or the decompressor. */
typedef struct coder_calls {
    bb_status (*write)(void *coder, const uint8_t *bytes, size_t size, bb_error *err);
    bb_status (*flush)(void *coder, bb_error *err); /* may be NULL */
} coder_calls;

enum { IDLE_MS = 100 };

static bb_status stopped(const job *j, bb_error *err) {
    snprintf(err->message, sizeof err->message, "%.800s: stopped", j->in_path);
    return err->code = BB_ERR_INTERRUPTED;
}

/* Feeds the input to a coder. Output that is ready does not wait for an idle pipe. A signal may have ended the program that writes into
 * the pipe, too, so the end of the input counts only if there was none. */
static bb_status feed(job *j, void *coder, const coder_calls *calls, bb_error *err) {
    uint8_t *buffer = malloc(CHUNK);
    bb_status status = BB_OK;
    struct pollfd input = {.fd = j->in, .events = POLLIN};
    if (!buffer) {
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory");
        return BB_ERR_MEMORY;
    }
    while (status == BB_OK) {
        if (calls->flush && poll(&input, 1, IDLE_MS) == 0) status = calls->flush(coder, err);
        if (status == BB_OK && !bb_signals_wait(j->in, POLLIN)) status = stopped(j, err);
        if (status != BB_OK) break;
        ssize_t n = read(j->in, buffer, CHUNK);
        if (*bb_signals_stop()) {
            status = stopped(j, err);
        } else if (n == 0) {
            break;
        } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
            status = fail_path(err, j->in_path, "read it");
        } else if (n > 0) {
            j->in_done += (double)n;
            status = calls->write(coder, buffer, (size_t)n, err);
        }
    }
    free(buffer);
    return status;
}

static bb_status compressor_write(void *c, const uint8_t *bytes, size_t size, bb_error *err) {
    return bb_compressor_write(c, bytes, size, err);
}
static bb_status decompressor_write(void *d, const uint8_t *bytes, size_t size, bb_error *err) {
    return bb_decompressor_write(d, bytes, size, err);
}
static bb_status decompressor_flush(void *d, bb_error *err) { return bb_decompressor_flush(d, err); }

static bb_status compress_all(job *j, bb_error *err) {
    static const coder_calls calls = {.write = compressor_write};
    bb_compressor *c = NULL;
    bb_status status = bb_compressor_open(j->model, &j->options, &c, err);
    if (status == BB_OK) status = feed(j, c, &calls, err);
    if (status == BB_OK) status = bb_compressor_finish(c, err);
    bb_compressor_close(c);
    return status;
}

static bb_status decompress_all(job *j, bb_error *err) {
    static const coder_calls calls = {.write = decompressor_write, .flush = decompressor_flush};
    bb_decompressor *d = NULL;
    bb_status status = bb_decompressor_open(j->model, &j->options, &d, err);
    if (status == BB_OK) status = feed(j, d, &calls, err);
    if (status == BB_OK) status = bb_decompressor_finish(d, err);
    bb_decompressor_close(d);
    return status;
}

static bb_status decompress_range(job *j, bb_error *err) {
    const char *path = j->in == STDIN_FILENO ? "/dev/stdin" : j->in_path;
    return bb_decompress_range(j->model, &j->options, path, j->args->range_offset, j->args->range_length, err);
}

static bb_status run_coder(job *j, bb_error *err) {
    j->in_done = j->out_done = j->plain_done = 0;
    j->write_errno = 0;
    j->start = bb_monotonic_seconds();
    bb_status status = j->args->range        ? decompress_range(j, err)
                       : j->args->decompress ? decompress_all(j, err)
                                             : compress_all(j, err);
    if (j->write_errno && *bb_signals_stop()) return stopped(j, err);
    if (j->write_errno) {
        errno = j->write_errno;
        return fail_path(err, j->args->output ? j->args->output : j->in_path, "write the output");
    }
    if (status == BB_ERR_FORMAT || status == BB_ERR_UNSUPPORTED || (j->args->range && status != BB_OK)) {
        bb_error found = *err;
        snprintf(err->message, sizeof err->message, "%.200s: %.800s", j->in_path, found.message);
    }
    return status;
}

/* ---- one file -------------------------------------------------------------------------------------------------------------- */

static void summarize(const job *j, const char *out_path) {
    double seconds = bb_monotonic_seconds() - j->start, plain = j->args->decompress ? j->out_done : j->in_done;
    double coded = j->args->decompress ? j->in_done : j->out_done, rate = seconds > 0 ? plain / seconds : 0;
    if (j->args->json) {
        json_t *line = json_pack("{s:o,s:o?,s:I,s:f,s:f}", "input", bb_json_path_string(j->in_path), "output",
                                 out_path ? bb_json_path_string(out_path) : NULL, "bytes", (json_int_t)plain, "seconds",
                                 seconds, "bytes_per_s", rate);
        if (line && j->args->range) (void)json_object_set_new(line, "offset", json_integer((json_int_t)j->args->range_offset));
        if (line && !j->args->range) {
            (void)json_object_set_new(line, "compressed_bytes", json_integer((json_int_t)coded));
            (void)json_object_set_new(line, "bits_per_byte", json_real(plain > 0 ? 8 * coded / plain : 0));
        }
        bb_json_line(line);
        return;
    }
    if (j->args->quiet) return;
    if (j->args->range) {
        fprintf(stderr, "%s: %.0f bytes from byte %llu on%s%s\n", j->in_path, plain, (unsigned long long)j->args->range_offset,
                out_path ? ", " : "", out_path ? out_path : "");
        return;
    }
    fprintf(stderr, "%s: %.2f%%, %.4f bits per byte (%.0f => %.0f bytes%s%s)", j->in_path,
            plain > 0 ? 100 * coded / plain : 100, plain > 0 ? 8 * coded / plain : 0, j->in_done, j->out_done,
            out_path ? ", " : "", out_path ? out_path : "");
    if (j->args->verbose) fprintf(stderr, " in %s, %s/s", bb_text_duration(seconds).s, bb_text_bytes((uint64_t)rate).s);
    fputs(j->args->test ? ": good\n" : "\n", stderr);
}

/* Determines the output file: from -o, or by adding or removing the suffix. */
static bb_status name_output(const job *j, char out[PATH_BYTES], bb_error *err) {
    size_t length = strlen(j->in_path), end = sizeof suffix - 1;
    if (j->args->output) {
        (void)snprintf(out, PATH_BYTES, "%s", j->args->output);
        return BB_OK;
    }
    if (length + sizeof suffix > PATH_BYTES) return refuse(err, j->in_path, "the name is too long");
    if (!j->args->decompress) {
        (void)snprintf(out, PATH_BYTES, "%s%s", j->in_path, suffix);
        return BB_OK;
    }
    if (length <= end || strcmp(j->in_path + length - end, suffix) != 0)
        return refuse(err, j->in_path, "the name does not end in .bby; name the output with -o, or use -c");
    (void)snprintf(out, PATH_BYTES, "%.*s", (int)(length - end), j->in_path);
    return BB_OK;
}

static bb_status open_input(job *j, struct stat *info, bb_error *err) {
    bool standard = strcmp(j->in_path, "-") == 0;
    if (standard) j->in_path = "(standard input)";
    j->in = standard ? STDIN_FILENO : open(j->in_path, O_RDONLY | O_CLOEXEC);
    if (j->in < 0 || fstat(j->in, info) != 0) return fail_path(err, j->in_path, "open it");
    if (S_ISDIR(info->st_mode)) return refuse(err, j->in_path, "is a folder; pack it with tar first");
    if (standard && isatty(STDIN_FILENO) == 1 && !j->args->force)
        return refuse(err, j->in_path, "is a terminal; name a file, or use -f");
    j->in_total = S_ISREG(info->st_mode) ? (double)info->st_size : 0;
    return BB_OK;
}

/* The file gets mode and times of the input. */
static bb_status code_to_file(job *j, const struct stat *info, const char *path, bb_error *err) {
    bb_replacement file;
    struct stat there;
    bb_status status = bb_output_check(path, err);
    if (status != BB_OK) return status;
    if (stat(path, &there) == 0 && !bb_written_in_place(&there)) {
        if (there.st_dev == info->st_dev && there.st_ino == info->st_ino) return refuse(err, path, "is the input");
        if (!j->args->force) return refuse(err, path, "already exists; use -f to overwrite it");
    }
    status = bb_replacement_open(&file, path, 0600, err);
    if (status != BB_OK) return status;
    j->out = file.fd;
    status = run_coder(j, err);
    j->out = -1;
    mode_t mask = umask(0);
    (void)umask(mask);
    bool regular = S_ISREG(info->st_mode), created = file.partial[0] != '\0';
    const struct timespec times[2] = {info->st_atim, info->st_mtim};
    if (status == BB_OK && created && fchmod(file.fd, regular ? info->st_mode & 0777 : 0666 & ~mask) != 0)
        status = fail_path(err, path, "set its mode");
    if (status == BB_OK && created && regular) (void)futimens(file.fd, times); /* some file systems do not store times */
    return bb_replacement_close(&file, status, err);
}

static bb_status code_file(job *j, const char *given, bb_error *err) {
    const bb_compress_args *args = j->args;
    struct stat info;
    char out_path[PATH_BYTES] = "";
    j->in_path = given;
    j->in = j->out = -1;
    bb_status status = open_input(j, &info, err);
    bool standard = j->in == STDIN_FILENO, to_stdout = args->to_stdout || ((standard || args->range) && !args->output);
    if (status == BB_OK && args->test) {
        status = run_coder(j, err);
    } else if (status == BB_OK && to_stdout) {
        if (!args->decompress && isatty(STDOUT_FILENO) == 1 && !args->force)
            status =
                refuse(err, j->in_path, "refusing to write compressed bytes to a terminal; redirect the output, or use -f");
        j->out = STDOUT_FILENO;
        if (status == BB_OK) status = run_coder(j, err);
    } else if (status == BB_OK) {
        status = name_output(j, out_path, err);
        if (status == BB_OK) status = code_to_file(j, &info, out_path, err);
    }
    bb_progress_clear(&j->progress);
    if (status == BB_OK) summarize(j, args->test || to_stdout ? NULL : out_path);
    if (j->in > STDIN_FILENO) (void)close(j->in);
    if (status == BB_OK && args->remove && !standard && !args->test && !to_stdout && unlink(given) != 0)
        status = fail_path(err, given, "remove it");
    return status;
}

/* ---- the command ----------------------------------------------------------------------------------------------------------- */

static bb_status resolve(const bb_cli *cli, const bb_compress_args *args, bb_compress_options *o, bb_error *err) {
    bb_compress_options_default(o);
    bb_status status = bb_compress_options_level(o, args->level, err);
    if (args->lanes) o->lanes = args->lanes;
    if (args->block_kb) o->block_bytes = args->block_kb << 10;
    if (bb_cli_given(cli, "context_length")) o->context_length = args->context_length;
    o->kv_cache = (bb_kv_type)args->kv_cache;
    if (args->mix) o->mix = args->mix == BB_MIX_ON;
    o->blocks = args->blocks;
    o->on_output = on_output;
    o->on_progress = on_progress;
    o->stop = bb_signals_stop();
    return status;
}

static void note_unused(const bb_cli *cli, const bb_compress_args *args) {
    static const char *const compression[] = {"level", "lanes", "block", "context_length", "kv_cache", "mix"};
    for (size_t i = 0; args->decompress && i < sizeof compression / sizeof *compression; i++)
        if (cli->command == &bb_compress_command) bb_cli_unused(cli, compression[i], "a stream records how it was made");
    if (!args->decompress) bb_cli_unused(cli, "blocks", "it applies to decompression; add -d");
    bb_device_args_notes(cli, &args->device);
}

static int run(const bb_cli *cli, bb_compress_args *args) {
    const bb_cli_command *command = cli->command;
    if (!args->model || !*args->model) args->model = getenv("BITBYTE_MODEL");
    args->decompress |= args->test;
    const char *wrong = bb_compress_contradiction(args);
    if (wrong) return bb_cli_usage_error(command, "%s", wrong);
    note_unused(cli, args);
    job j = {.args = args, .command = command};
    bb_found_model found = {.model = NULL};
    bb_device *device = NULL;
    bb_error err = {.code = BB_OK};
    int failures = 0, count = args->inputs.count ? args->inputs.count : 1;
    bb_progress_open(&j.progress, stderr, 0);
    bb_status status = resolve(cli, args, &j.options, &err);
    j.options.user = &j;
    if (status == BB_OK) status = bb_device_args_open(&args->device, NULL, &device, &err);
    if (status == BB_OK) status = bb_model_open(device, args->model, &args->import, &found, &err);
    j.model = found.model;
    bb_signals_install(NULL, NULL, NULL);
    if (status != BB_OK) failures = bb_cli_fail(command, &err);
    if (status == BB_OK && args->verbose)
        fprintf(stderr, "%d lanes, blocks of %s, a context of %d bytes%s%s\n", j.options.lanes,
                bb_text_bytes((uint64_t)j.options.block_bytes).s, j.options.context_length,
                j.options.context_length ? "" : " (the model's)", j.options.mix ? ", mixed" : "");
    for (int i = 0; status == BB_OK && i < count && !*bb_signals_stop(); i++) {
        bb_status one = code_file(&j, args->inputs.count ? args->inputs.items[i] : "-", &err);
        if (one != BB_OK && one != BB_ERR_INTERRUPTED) failures = bb_cli_fail(command, &err);
    }
    bb_model_free(found.model);
    bb_device_close(device);
    return bb_signals_exit_status() ? bb_signals_exit_status() : failures;
}

static int parse_and_run(const bb_cli_command *command, bool decompress, int argc, char **argv) {
    bb_compress_args args = {.level = 5, .decompress = decompress};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = run(&cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}

int bb_cmd_compress(int argc, char **argv) { return parse_and_run(&bb_compress_command, false, argc, argv); }
int bb_cmd_decompress(int argc, char **argv) { return parse_and_run(&bb_decompress_command, true, argc, argv); }
