// SPDX-License-Identifier: MIT
/* Decompresses with zlib, libzstd, liblzma and libbz2 behind one function. */
#include "data/decompress.h"

#include <limits.h>

static bb_status no_memory(const bb_decompressor *d, bb_error *err) {
    return bb_fail(err, BB_ERR_MEMORY, "no memory to read %s", d->content.name);
}

static bb_status damaged(const bb_decompressor *d, const char *reason, bb_error *err) {
    return bb_fail(err, BB_ERR_FORMAT, "%s is damaged: %s", d->content.name, reason ? reason : "not expected there");
}

static unsigned int_size(size_t size) { return size < UINT_MAX ? (unsigned)size : UINT_MAX; }

/* Returns whether no further member begins here. Some tools and tapes pad with zeros, which gzip allows. */
static bool skip_padding(bb_decompressor *d, bb_decompress_step *s) {
    while (d->started && s->in_size > 0 && *s->in == 0) {
        s->in++;
        s->in_size--;
    }
    return s->in_size == 0;
}

static bb_status gunzip(bb_decompressor *d, bb_decompress_step *s, bb_error *err) {
    if (!d->inside) {
        if (skip_padding(d, s)) return BB_OK;
        if (d->started) inflateReset(&d->gzip);
        d->inside = d->started = true;
    }
    unsigned in_size = int_size(s->in_size), out_size = int_size(s->out_size);
    d->gzip.next_in = (Bytef *)s->in; /* zlib does not write to it */
    d->gzip.avail_in = in_size;
    d->gzip.next_out = s->out;
    d->gzip.avail_out = out_size;
    int rc = inflate(&d->gzip, Z_NO_FLUSH);
    s->in += in_size - d->gzip.avail_in;
    s->in_size -= in_size - d->gzip.avail_in;
    s->out += out_size - d->gzip.avail_out;
    s->out_size -= out_size - d->gzip.avail_out;
    d->full = d->gzip.avail_out == 0;
    if (rc == Z_MEM_ERROR) return no_memory(d, err);
    if (rc == Z_STREAM_END) d->inside = d->full = false;
    if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR) return BB_OK;
    return damaged(d, d->gzip.msg, err);
}

static bb_status unzstd(bb_decompressor *d, bb_decompress_step *s, bb_error *err) {
    ZSTD_inBuffer in = {s->in, s->in_size, 0};
    ZSTD_outBuffer out = {s->out, s->out_size, 0};
    if (!d->inside && s->in_size == 0) return BB_OK;
    size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);
    s->in += in.pos;
    s->in_size -= in.pos;
    s->out += out.pos;
    s->out_size -= out.pos;
    if (ZSTD_isError(rc)) return damaged(d, ZSTD_getErrorName(rc), err);
    d->inside = rc != 0;
    d->full = d->inside && s->out_size == 0;
    return BB_OK;
}

/* liblzma continues from stream to stream. At the end of the input it reports whether the last stream is complete. */
static bb_status run_xz(bb_decompressor *d, bb_decompress_step *s, lzma_action action, bb_error *err) {
    d->xz.next_in = s->in;
    d->xz.avail_in = s->in_size;
    d->xz.next_out = s->out;
    d->xz.avail_out = s->out_size;
    lzma_ret rc = lzma_code(&d->xz, action);
    s->in = d->xz.next_in;
    s->in_size = d->xz.avail_in;
    s->out = d->xz.next_out;
    s->out_size = d->xz.avail_out;
    d->full = s->out_size == 0;
    d->inside = rc != LZMA_STREAM_END;
    switch (rc) {
    case LZMA_OK:
    case LZMA_STREAM_END:
    case LZMA_NO_CHECK:
    case LZMA_GET_CHECK:
    case LZMA_BUF_ERROR: return BB_OK; /* no progress without more input or output space */
    case LZMA_MEM_ERROR: return no_memory(d, err);
    case LZMA_UNSUPPORTED_CHECK:
    case LZMA_OPTIONS_ERROR: return damaged(d, "it needs a feature that this liblzma lacks", err);
    default: return damaged(d, "the checksum does not match", err);
    }
}

static bb_status bunzip2(bb_decompressor *d, bb_decompress_step *s, bb_error *err) {
    if (!d->inside) {
        if (skip_padding(d, s)) return BB_OK;
        d->bzip2 = (bz_stream){0};
        if (BZ2_bzDecompressInit(&d->bzip2, 0, 0) != BZ_OK) return no_memory(d, err);
        d->inside = d->started = true;
    }
    unsigned in_size = int_size(s->in_size), out_size = int_size(s->out_size);
    d->bzip2.next_in = (char *)s->in; /* libbz2 does not write to it */
    d->bzip2.avail_in = in_size;
    d->bzip2.next_out = (char *)s->out;
    d->bzip2.avail_out = out_size;
    int rc = BZ2_bzDecompress(&d->bzip2);
    s->in += in_size - d->bzip2.avail_in;
    s->in_size -= in_size - d->bzip2.avail_in;
    s->out += out_size - d->bzip2.avail_out;
    s->out_size -= out_size - d->bzip2.avail_out;
    d->full = d->bzip2.avail_out == 0;
    if (rc == BZ_STREAM_END) {
        BZ2_bzDecompressEnd(&d->bzip2);
        d->inside = d->full = false;
    }
    if (rc == BZ_OK || rc == BZ_STREAM_END) return BB_OK;
    if (rc == BZ_MEM_ERROR) return no_memory(d, err);
    return damaged(d, rc == BZ_DATA_ERROR_MAGIC ? "unexpected data follows" : "the checksum does not match", err);
}

bb_status bb_decompress_open(bb_content content, bb_decompressor *out, bb_error *err) {
    *out = (bb_decompressor){.content = content, .xz = LZMA_STREAM_INIT};
    bool opened = true;
    switch (content.kind) {
    case BB_CONTENT_GZIP: opened = inflateInit2(&out->gzip, 16 + MAX_WBITS) == Z_OK; break;
    case BB_CONTENT_ZSTD:
        out->zstd = ZSTD_createDStream();
        opened = out->zstd && !ZSTD_isError(ZSTD_initDStream(out->zstd));
        break;
    case BB_CONTENT_XZ: opened = lzma_stream_decoder(&out->xz, UINT64_MAX, LZMA_CONCATENATED) == LZMA_OK; break;
    case BB_CONTENT_BZIP2: break; /* reopened for each stream */
    default: return bb_fail(err, BB_ERR_INTERNAL, "%s is not compressed", content.name);
    }
    if (opened) return BB_OK;
    bb_status status = no_memory(out, err);
    if (content.kind == BB_CONTENT_GZIP) out->content.kind = BB_CONTENT_PLAIN; /* nothing to close */
    bb_decompress_close(out);
    return status;
}

bb_status bb_decompress(bb_decompressor *d, bb_decompress_step *step, bb_error *err) {
    d->full = false;
    switch (d->content.kind) {
    case BB_CONTENT_GZIP: return gunzip(d, step, err);
    case BB_CONTENT_ZSTD: return unzstd(d, step, err);
    case BB_CONTENT_XZ: return run_xz(d, step, LZMA_RUN, err);
    case BB_CONTENT_BZIP2: return bunzip2(d, step, err);
    default: return bb_fail(err, BB_ERR_INTERNAL, "%s is not compressed", d->content.name);
    }
}

bb_status bb_decompress_end(bb_decompressor *d, bb_error *err) {
    uint8_t nothing;
    bb_decompress_step step = {.in = &nothing, .out = &nothing}; /* sizes 0 */
    if (d->content.kind == BB_CONTENT_XZ) BB_TRY(run_xz(d, &step, LZMA_FINISH, err));
    return d->inside ? bb_fail(err, BB_ERR_FORMAT, "%s is truncated", d->content.name) : BB_OK;
}

void bb_decompress_close(bb_decompressor *d) {
    if (d->content.kind == BB_CONTENT_GZIP) inflateEnd(&d->gzip);
    if (d->content.kind == BB_CONTENT_BZIP2 && d->inside) BZ2_bzDecompressEnd(&d->bzip2);
    if (d->content.kind == BB_CONTENT_XZ) lzma_end(&d->xz);
    ZSTD_freeDStream(d->zstd);
    *d = (bb_decompressor){0};
}
