// SPDX-License-Identifier: MIT
/* bitbyte generate --interactive: a conversation in one session. Uses libedit on a terminal, plain lines otherwise. */
#include "interactive.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "generate_report.h"
#include "signals.h"
#include "text_out.h"

#ifdef BB_HAVE_LIBEDIT
#include <histedit.h>
#endif

static const char help[] =
    "Each line is appended to the text, and the model continues from there; an empty line just continues.\n"
    "Ctrl-C stops an answer, Ctrl-D quits.\n"
    "  /again   generate another answer instead of the last\n"
    "  /reset   clear the text\n"
    "  /quit    quit\n"
    "  //text   a line that starts with a slash\n";

/* Input lines. */
typedef struct reader {
    bool terminal; /* interactive: Ctrl-C stops only the answer */
    bool prompted; /* input and output are terminals: show a prompt */
    char *line;    /* buffer of getline */
    size_t capacity;
#ifdef BB_HAVE_LIBEDIT
    EditLine *editor;
    History *history;
#endif
} reader;

#ifdef BB_HAVE_LIBEDIT
static const char *prompt_text(EditLine *editor) {
    (void)editor;
    return "> ";
}

/* Ctrl-C while typing discards the line. */
static unsigned char drop_line(EditLine *editor, int key) {
    (void)key;
    const LineInfoW *line = el_wline(editor);
    int length = (int)(line->lastchar - line->buffer);
    el_cursor(editor, (int)(line->lastchar - line->cursor));
    if (length > 0) el_wdeletestr(editor, length);
    fputs("^C\n", stdout);
    return CC_REDISPLAY;
}

static unsigned char suspend(EditLine *editor, int key) {
    (void)editor;
    (void)key;
    raise(SIGTSTP);
    return CC_REFRESH;
}

static bool editor_open(reader *r) {
    HistEvent event;
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8"); /* text is UTF-8, even without a locale */
    r->editor = el_init_fd("bitbyte", stdin, stdout, stderr, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO);
    r->history = history_init();
    if (!r->editor || !r->history) return false;
    history(r->history, &event, H_SETSIZE, 1000);
    history(r->history, &event, H_SETUNIQUE, 1);
    el_set(r->editor, EL_PROMPT, prompt_text);
    el_set(r->editor, EL_EDITOR, "emacs");
    el_set(r->editor, EL_HIST, history, r->history);
    el_set(r->editor, EL_SIGNAL, 1);
    /* receive Ctrl-C and Ctrl-Z as keys, not as signals */
    el_set(r->editor, EL_SETTY, "-d", "-isig", NULL);
    el_set(r->editor, EL_ADDFN, "drop-line", "discard the line", drop_line);
    el_set(r->editor, EL_ADDFN, "suspend", "suspend the program", suspend);
    el_set(r->editor, EL_BIND, "^C", "drop-line", NULL);
    el_set(r->editor, EL_BIND, "^Z", "suspend", NULL);
    el_set(r->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return true;
}
#endif

static bool reader_open(reader *r, bb_error *err) {
    *r = (reader){.terminal = isatty(STDIN_FILENO) == 1};
    r->prompted = r->terminal && isatty(STDOUT_FILENO) == 1;
    if (!r->prompted) return true;
#ifdef BB_HAVE_LIBEDIT
    if (editor_open(r)) return true;
    err->code = BB_ERR_MEMORY;
    snprintf(err->message, sizeof err->message, "libedit cannot edit lines on this terminal (TERM=%s)",
             getenv("TERM") ? getenv("TERM") : "");
#else
    err->code = BB_ERR_UNSUPPORTED;
    snprintf(
        err->message, sizeof err->message,
        "--interactive on a terminal needs libedit, which this build lacks: install libedit-dev and rebuild, or pipe lines "
        "into it");
#endif
    return false;
}

static void reader_close(reader *r) {
#ifdef BB_HAVE_LIBEDIT
    if (r->editor) el_end(r->editor);
    if (r->history) history_end(r->history);
#endif
    free(r->line);
}

/* Returns the next line without LF or CRLF, or NULL at the end. */
static const char *reader_line(reader *r, size_t *length) {
    const char *line = NULL;
    ssize_t n = -1;
#ifdef BB_HAVE_LIBEDIT
    if (r->editor) {
        int count = 0;
        line = el_gets(r->editor, &count);
        n = line ? count : -1;
        HistEvent event;
        if (n > 1) history(r->history, &event, H_ENTER, line);
    }
#endif
    if (!r->prompted) {
        n = getline(&r->line, &r->capacity, stdin);
        line = r->line;
    }
    if (n <= 0) return NULL;
    if (n > 0 && line[n - 1] == '\n') n--;
    if (n > 0 && line[n - 1] == '\r') n--;
    *length = (size_t)n;
    return line;
}

/* ---- the conversation ------------------------------------------------------------------------------------------------ */

typedef struct answer {
    bb_text_out out;
    uint8_t last;
    int64_t bytes;
} answer;

static bool on_byte(void *user, uint8_t byte) {
    answer *a = user;
    bb_text_out_byte(&a->out, byte);
    a->last = byte;
    a->bytes++;
    fflush(stdout);
    return !*bb_signals_stop() && !ferror(stdout);
}

static bool on_read(void *user, int64_t done, int64_t total) {
    (void)user;
    (void)done;
    (void)total;
    return !*bb_signals_stop();
}

void bb_interactive_prepare(bb_session_options *options) { options->on_read = on_read; }

static bb_status answer_now(bb_interactive *i, const reader *r, uint64_t seed, bb_error *err) {
    answer a = {.last = '\n'};
    bb_sample sample = {.seed = seed};
    bb_generate_options o = i->generation->options;
    o.seed = seed;
    o.on_byte = on_byte;
    o.user = &a;
    bb_text_out_open(&a.out, stdout, !isatty(STDOUT_FILENO));
    bb_status status = bb_session_generate(i->session, &o, &sample.metrics, err);
    bb_text_out_end(&a.out);
    if (a.last != '\n' || (r->prompted && *bb_signals_stop())) fputc('\n', stdout);
    fflush(stdout);
    sample.invalid_utf8 = a.out.utf8.invalid;
    if (status == BB_OK && i->metrics) bb_generate_report_show(&sample, stderr);
    return status;
}

/* Appends a line to the text and marks the end. If reading is interrupted, the text is restored. */
static bb_status feed_line(bb_interactive *i, const char *line, size_t length, bb_error *err) {
    bb_status status = bb_session_mark(i->session, err);
    if (status != BB_OK) return status;
    if (length > 0) {
        if (bb_session_length(i->session) > 0)
            status = bb_session_feed(i->session, i->line_prefix.data, i->line_prefix.size, err);
        if (status == BB_OK) status = bb_session_feed(i->session, (const uint8_t *)line, length, err);
        if (status == BB_OK) status = bb_session_feed(i->session, i->line_suffix.data, i->line_suffix.size, err);
        if (status == BB_ERR_INTERRUPTED) {
            bb_error ignored;
            bb_status back = bb_session_rewind(i->session, &ignored);
            if (back != BB_OK) return back;
        }
    }
    return status == BB_OK ? bb_session_mark(i->session, err) : status;
}

typedef enum outcome { CONTINUE, END, FAILED } outcome;

/* Handles one line: a command or text. *again counts the answers to the same text. */
static outcome handle_line(bb_interactive *i, const reader *r, const char *line, size_t length, uint64_t *again,
                           bb_error *err) {
    bb_status status = BB_OK;
    bool command = length > 0 && line[0] == '/' && !(length > 1 && line[1] == '/');
    if (command && length == 5 && memcmp(line, "/quit", 5) == 0) return END;
    if (command && length == 6 && memcmp(line, "/reset", 6) == 0) {
        bb_session_clear(i->session);
        *again = 0;
        return CONTINUE;
    }
    if (command && length == 6 && memcmp(line, "/again", 6) == 0) {
        status = bb_session_rewind(i->session, err);
        if (status == BB_ERR_ARGUMENT) {
            fprintf(stderr, "there is no answer to replace yet\n");
            return CONTINUE;
        }
        ++*again;
    } else if (command) {
        bool asked = length == 5 && memcmp(line, "/help", 5) == 0;
        if (!asked) fprintf(stderr, "unknown command %.*s\n", (int)length, line);
        fputs(help, asked ? stdout : stderr);
        fflush(stdout);
        return CONTINUE;
    } else {
        bool slash = length > 0 && line[0] == '/';
        *again = 0;
        status = feed_line(i, line + slash, length - slash, err);
        if (status == BB_ERR_INTERRUPTED) {
            fprintf(stderr, "\ninterrupted: the line was dropped\n");
            return CONTINUE;
        }
    }
    if (status == BB_OK) status = answer_now(i, r, i->generation->options.seed + *again, err);
    if (status == BB_ERR_INTERRUPTED) return CONTINUE;
    return status == BB_OK ? CONTINUE : FAILED;
}

int bb_interactive_run(bb_interactive *i, bb_error *err) {
    reader r;
    size_t length;
    const char *line;
    uint64_t again = 0;
    outcome now = CONTINUE;
    if (!reader_open(&r, err)) {
        reader_close(&r);
        return -1;
    }
    if (r.terminal) bb_signals_uninstall();
    if (r.prompted) fputs("Ctrl-C stops an answer, Ctrl-D quits, /help lists commands.\n", stdout);
    while (now == CONTINUE && !ferror(stdout) && (line = reader_line(&r, &length))) {
        /* without a terminal, signals end the program */
        if (r.terminal) bb_signals_catch_interrupts();
        now = handle_line(i, &r, line, length, &again, err);
        if (r.terminal)
            bb_signals_uninstall();
        else if (*bb_signals_stop())
            break;
    }
    if (r.prompted && now == CONTINUE) fputc('\n', stdout);
    reader_close(&r);
    return now == FAILED ? -1 : bb_signals_exit_status();
}
