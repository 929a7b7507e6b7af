// SPDX-License-Identifier: MIT
/* Entry point: finds the command and runs it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli_help.h"
#include "cli_nearest.h"
#include "commands.h"
#include "common.h"
#include "standard_streams.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"pack", bb_cmd_pack, "pack files and folders into shards for training"},
    {"train", bb_cmd_train, "train a model, or resume training"},
    {"eval", bb_cmd_eval, "measure bits per byte on held-out data"},
    {"score", bb_cmd_score, "score files, lines or records by how well a model predicts them"},
    {"compress", bb_cmd_compress, "compress files with a model's predictions"},
    {"decompress", bb_cmd_decompress, "decompress what compress wrote"},
    {"generate", bb_cmd_generate, "generate text"},
    {"serve", bb_cmd_serve, "serve a model over HTTP: a page, and OpenAI's API"},
    {"report", bb_cmd_report, "draw training runs as a page or a plot"},
    {"export", bb_cmd_export, "convert a model, by default to 2-bit weights for inference"},
    {"convert", bb_cmd_convert, "convert a model between formats, by the new file's name"},
    {"info", bb_cmd_info, "describe or verify a model file, predict memory"},
    {"bench", bb_cmd_bench, "benchmark training or inference on this machine"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out) {
    fprintf(out, "bitbyte %s: byte-level language models with ternary weights\n\nUsage: bitbyte COMMAND [OPTIONS]\n\n",
            bb_version());
    for (int i = 0; i < COMMANDS; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out,
            "\n  bitbyte help COMMAND   options and defaults\n"
            "  bitbyte --version\n\n"
            "Quick start\n"
            "  bitbyte pack --inputs my_texts/ --out_dir data --val_frac 0.05\n"
            "  bitbyte train --data data --out runs/first --minutes 20\n"
            "  bitbyte eval runs/first data/val_00000.bin\n"
            "  bitbyte generate runs/first --prompt 'In the beginning'\n\n"
            "Exit status: 0 success, 1 failure, 2 usage error, 3 stopped by --max_minutes; 129, 130, 143 or 152: stopped by\n"
            "SIGHUP, SIGINT, SIGTERM or SIGXCPU.\n");
}

/* --help=FORMAT of the program itself: see bb_cli_help_as. */
static int usage_as(const char *format) {
    if (strcmp(format, "complete") == 0) {
        for (int i = 0; i < COMMANDS; i++) printf("%s\t%s\n", commands[i].name, commands[i].summary);
        return BB_EXIT_OK;
    }
    if (strcmp(format, "man") != 0) {
        fprintf(stderr, "bitbyte: --help=%s: expected man or complete\n", format);
        return BB_EXIT_USAGE;
    }
    bb_cli_man_head("BITBYTE", "bitbyte", "byte-level language models with ternary weights", stdout);
    printf(".B bitbyte\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH COMMANDS\n");
    for (int i = 0; i < COMMANDS; i++) {
        printf(".TP\n.BR bitbyte\\-%s (1)\n", commands[i].name);
        bb_cli_roff(commands[i].summary, stdout);
        printf("\n");
    }
    printf(".SH EXIT STATUS\n0: success. 1: failure. 2: usage error. 3: stopped by \\-\\-max_minutes.\n"
           "129, 130, 143 or 152: stopped by SIGHUP, SIGINT, SIGTERM or SIGXCPU.\n");
    return BB_EXIT_OK;
}

static int find(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return i;
    const char *names[COMMANDS + 1] = {NULL};
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *nearest = bb_cli_nearest(name, names);
    if (nearest)
        fprintf(stderr, "bitbyte: unknown command '%s'; did you mean '%s'?\n", name, nearest);
    else
        fprintf(stderr, "bitbyte: unknown command '%s'\n", name);
    fprintf(stderr, "See 'bitbyte help'.\n");
    return -1;
}

static int run(int argc, char **argv) {
    if (argc < 2) {
        usage(stderr);
        return BB_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("bitbyte %s\n", bb_version());
        return BB_EXIT_OK;
    }
    if (strncmp(word, "--help=", 7) == 0) return usage_as(word + 7);
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        if (argc < 3) {
            usage(stdout);
            return BB_EXIT_OK;
        }
        int which = find(argv[2]);
        char help[] = "--help";
        char *arguments[] = {argv[2], help, NULL};
        return which < 0 ? BB_EXIT_USAGE : commands[which].run(2, arguments);
    }
    int which = find(word);
    return which < 0 ? BB_EXIT_USAGE : commands[which].run(argc - 1, argv + 1);
}

/* By default, GCC's OpenMP threads spin for milliseconds at a barrier. On an idle machine that is free, but with one other busy
 * process a step takes three times as long. So spin briefly, then sleep. The OpenMP runtime reads the setting when it is
 * loaded, before main, so the program executes itself once more; if that fails, it continues with the default. */
static void spin_briefly(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return; /* set by the user or by the first start */
    if (setenv("GOMP_SPINCOUNT", "5000", 0) == 0) execv("/proc/self/exe", argv);
}

static void prepare_process(void) {
    prctl(PR_SET_NAME, "bitbyte"); /* /proc/self/exe left the name "exe", which pgrep bitbyte does not find */
    signal(SIGXFSZ, SIG_IGN);      /* turns exceeding the file size limit into a write error */
}

int main(int argc, char **argv) {
    bb_standard_streams_open();
    spin_briefly(argv);
    prepare_process();
    bb_device_choices_init();
    int status = run(argc, argv);
    /* Lost output is a failure, even if all else succeeded. */
    bool failed_before = ferror(stdout) != 0; /* then errno is stale */
    if (fflush(stdout) != 0 || failed_before) {
        fprintf(stderr, "bitbyte: cannot write to standard output%s%s\n", failed_before ? "" : ": ",
                failed_before ? "" : strerror(errno));
        if (status == BB_EXIT_OK) status = BB_EXIT_FAILURE;
    }
    return status;
}
