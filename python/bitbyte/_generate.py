# SPDX-License-Identifier: MIT
"""Generation: one text as an iterator, or many at once. Both run a batch of the library step by step, so that Python runs between the
steps, where Ctrl-C or leaving the loop can end it."""
from __future__ import annotations

import collections
import dataclasses
from types import TracebackType
from typing import Any, Iterator, Mapping

import numpy as np

from bitbyte._library import Callbacks, Error, Handle, Options, as_exception, call, ffi, lib
from bitbyte._model import Model, as_bytes

KV_CACHES = {"int6": "BB_KV_INT6", "int8": "BB_KV_INT8", "f32": "BB_KV_F32"}
FINISHES = {"BB_FINISH_LENGTH": "length", "BB_FINISH_STOP": "stop", "BB_FINISH_CALLER": "cancelled", "BB_FINISH_ERROR": "error"}


@dataclasses.dataclass(frozen=True)
class Metrics:
    prompt_bytes: int
    new_bytes: int
    passes: int
    prompt_seconds: float
    decode_seconds: float
    first_byte_seconds: float
    mean_logprob: float
    """mean of the new bytes, in nats, before temperature and the other options"""


class _Texts:
    """A batch of the library, and its requests."""

    def __init__(self, model: Model, max_sequences: int):
        self._model, self._callbacks = model, Callbacks()
        out = ffi.new("bb_batch **")
        call(lib.bb_batch_open, model._pointer, Options("bb_batch_options", max_sequences=max_sequences, keep=0).pointer, out)
        self._handle = Handle(self, out[0], lib.bb_batch_close, model._handle)

    def add(self, prompt: bytes, given: Mapping[str, Any], seed: int, take: Any, end: Any) -> None:
        options = dict(given)
        stops = options.pop("stops", ())
        on_logits = options.pop("on_logits", None)
        if "kv_cache" in options:
            if options["kv_cache"] not in KV_CACHES:
                raise ValueError(f"kv_cache: expected one of {', '.join(KV_CACHES)}; found {options['kv_cache']!r}")
            options["kv_cache"] = getattr(lib, KV_CACHES[options["kv_cache"]])
        o = Options("bb_generate_options", {**options, "seed": seed & (1 << 64) - 1})
        texts = [as_bytes(s) for s in ([stops] if isinstance(stops, (str, bytes)) else stops)]
        if texts:
            buffers = [o.keep(ffi.from_buffer("uint8_t[]", t)) for t in texts]
            o.pointer.stops = o.keep(ffi.new("bb_bytes[]", [{"data": b, "size": len(t)} for b, t in zip(buffers, texts)]))
            o.pointer.stop_count = len(texts)
        request = Options("bb_batch_request", options=o.pointer)
        r = request.pointer
        data = ffi.from_buffer("uint8_t[]", prompt)
        r.prompt.data, r.prompt.size = data, len(prompt)
        make = self._callbacks.make
        r.on_byte = make("bool(void *, const bb_batch_byte *)", lambda user, byte: take(byte.byte) is not False, on_error=False)
        r.on_end = make("void(void *, const bb_batch_end *)", lambda user, ended: end(ended))
        if on_logits:
            r.on_logits = make("void(void *, float *)", lambda user, logits: on_logits(np.frombuffer(ffi.buffer(logits, 1024), np.float32)))
        call(lib.bb_batch_add, self._handle.pointer, r, ffi.new("int64_t *"))

    def step(self) -> bool:
        """Runs one pass of the model. Returns whether any text is unfinished."""
        more = ffi.new("bool *")
        call(lib.bb_batch_step, self._handle.pointer, more)
        self._callbacks.check()
        return bool(more[0])

    def close(self) -> None:
        self._handle.close()


class Generation(Iterator[bytes]):
    """A text being generated: an iterator of its bytes. It ends with the loop that reads it, with `close`, or as a context manager."""

    def __init__(self, model: Model, prompt: bytes, options: Mapping[str, Any]):
        self._bytes: collections.deque[bytes] = collections.deque()
        self._more = True
        self.finish: str | None = None
        """"length", "stop", "cancelled" or "error"; None while it is running"""
        self._error: Error | None = None
        self.metrics: Metrics | None = None
        """available at the end"""
        given = dict(options)
        seed = given.pop("seed", 0)
        self._texts = _Texts(model, 1)
        try:
            self._texts.add(prompt, given, seed, lambda byte: self._bytes.append(bytes((byte,))), self._end)
        except BaseException:
            self._texts.close()
            raise

    def _end(self, end: Any) -> None:
        self.finish = FINISHES[ffi.string(ffi.cast("bb_finish", end.finish))]
        if end.error:
            self._error = as_exception(end.error.code, end.error)
        names = [f.name for f in dataclasses.fields(Metrics)]
        self.metrics = Metrics(**{name: getattr(end.metrics, name) for name in names})

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> bytes:
        while not self._bytes and self._more:
            try:
                self._more = self._texts.step()
            except BaseException:
                self.close()
                raise
        if self._bytes:
            return self._bytes.popleft()
        self.close()
        error, self._error = self._error, None
        raise error or StopIteration

    def close(self) -> None:
        """Ends the text; unread bytes are dropped."""
        self._more = False
        self._bytes.clear()
        self._texts.close()

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def generate_many(model: Model, prompts: list[bytes], parallel: int, options: Mapping[str, Any]) -> list[bytes]:
    given, out = dict(options), [bytearray() for _ in prompts]
    seed = given.pop("seed", 0)
    failed: list[Error] = []

    def end(ended: Any) -> None:
        if ended.error:
            failed.append(as_exception(ended.error.code, ended.error))

    texts = _Texts(model, parallel)
    try:
        for i, prompt in enumerate(prompts):
            texts.add(prompt, given, seed + i, out[i].append, end)
        while prompts and texts.step():
            pass
    finally:
        texts.close()
    if failed:
        raise failed[0]
    return [bytes(text) for text in out]
