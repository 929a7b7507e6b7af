// SPDX-License-Identifier: MIT
#include "modelfile/chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static const char role_mark[] = "{role}", content_mark[] = "{content}";

bb_status bb_chat_template_check(const char *text, bb_error *err) {
    BB_REQUIRE("chat_template", text);
    const char *role = strstr(text, role_mark), *content = strstr(text, content_mark), *wrong = NULL;
    if (strlen(text) > BB_MAX_CHAT_TEMPLATE)
        return bb_fail(err, BB_ERR_ARGUMENT, "chat template: expected at most %d bytes, found %zu", BB_MAX_CHAT_TEMPLATE,
                       strlen(text));
    if (!role || !content)
        wrong = "expected a text with {role} and {content}";
    else if (role > content)
        wrong = "expected {role} before {content}";
    else if (strstr(content + 1, content_mark))
        wrong = "expected {content} once";
    else if (!content[strlen(content_mark)])
        wrong = "expected a text after {content}, such as a line break";
    else if (!bb_json_is_utf8(text))
        wrong = "expected UTF-8 text";
    return wrong ? bb_fail(err, BB_ERR_ARGUMENT, "chat template: %s", wrong) : BB_OK;
}

const char *bb_model_chat_template(const bb_model *m) { return m ? m->chat_template : NULL; }

bb_status bb_model_copy_chat_template(bb_model *m, const char *text, bb_error *err) {
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    free(m->chat_template);
    m->chat_template = copy;
    return BB_OK;
}

bb_status bb_model_set_chat_template(bb_model *m, const char *text, bb_error *err) {
    BB_REQUIRE("model", m);
    if (text) BB_TRY(bb_chat_template_check(text, err));
    return bb_model_copy_chat_template(m, text, err);
}

/* ---- Jinja -------------------------------------------------------------------------------------------------------------- */

/* Within a string in double quotes. */
static void put_escaped(FILE *f, char c) {
    static const char escaped[] = "\n\r\t\\\"", letters[] = "nrt\\\"";
    const char *at = strchr(escaped, c);
    if (at)
        fprintf(f, "\\%c", letters[at - escaped]);
    else if ((unsigned char)c < 0x20 || c == 0x7f)
        fprintf(f, "\\x%02x", (unsigned)c);
    else
        fputc(c, f);
}

/* `from` to `to` as an expression: strings and the value of `role`, which may be NULL for a role that is part of the text. */
static void put_expression(FILE *f, const char *from, const char *to, const char *role) {
    bool quoted = false, first = true;
    while (from < to) {
        bool is_role = strncmp(from, role_mark, strlen(role_mark)) == 0 && from + strlen(role_mark) <= to;
        if (is_role && role) {
            fprintf(f, "%s%s%s", quoted ? "\"" : "", first ? "" : " + ", role);
            quoted = false;
        } else {
            if (!quoted) fprintf(f, "%s\"", first ? "" : " + ");
            quoted = true;
            if (is_role)
                fputs("assistant", f);
            else
                put_escaped(f, *from);
        }
        first = false;
        from += is_role ? strlen(role_mark) : 1;
    }
    if (quoted) fputc('"', f);
}

char *bb_chat_template_jinja(const char *text) {
    const char *content = strstr(text, content_mark), *after = content + strlen(content_mark);
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);
    if (!f) return NULL;
    fputs("{% for message in messages %}{{ ", f);
    put_expression(f, text, content, "message['role']");
    fputs(" + message['content'] + ", f);
    put_expression(f, after, after + strlen(after), "message['role']");
    fputs(" }}{% endfor %}{% if add_generation_prompt %}{{ ", f);
    put_expression(f, text, content, NULL);
    fputs(" }}{% endif %}", f);
    bool failed = ferror(f) != 0;
    if (fclose(f) == 0 && !failed) return out;
    free(out);
    return NULL;
}
