# SPDX-License-Identifier: MIT
"""Devices and models: loading, logits, weights, scores, evaluation."""
from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any, Callable, Iterable, Union

import numpy as np
import numpy.typing as npt

from bitbyte._library import Callbacks, Handle, Options, StopFlag, call, ffi, interruptible, lib, path_bytes, text

if TYPE_CHECKING:
    from bitbyte._generate import Generation

Text = Union[bytes, bytearray, memoryview, str]
Path = Union[str, "os.PathLike[str]"]


def as_bytes(value: Text) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def as_byte_array(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    array = np.asarray(values)
    if array.dtype.kind not in "ui" or array.size and (array.min() < 0 or array.max() > 255):
        raise ValueError(f"expected bytes, integers from 0 to 255; found {array.dtype}")
    return np.ascontiguousarray(array, np.uint8)


class Device:
    """Where models compute: "cpu", "cuda", "cuda:1" or "ref". Results do not depend on the number of threads; 0: all processors."""

    def __init__(self, name: str = "cpu", threads: int = 0):
        out = ffi.new("bb_device **")
        call(lib.bb_device_open, name.encode(), threads, out)
        self._handle = Handle(self, out[0], lib.bb_device_close)

    @property
    def _pointer(self) -> Any:
        return self._handle.pointer

    @property
    def threads(self) -> int:
        return int(lib.bb_device_threads(self._pointer))

    def __repr__(self) -> str:
        return f"<bitbyte.Device {text(lib.bb_device_name(self._pointer))}: {text(lib.bb_device_description(self._pointer))}>"


_default_device: Device | None = None


def default_device() -> Device:
    """The device that models use by default."""
    global _default_device
    _default_device = _default_device or Device()
    return _default_device


@dataclasses.dataclass(frozen=True)
class Config:
    """The shape of a model."""

    n_layer: int
    d_model: int
    n_head: int
    n_kv_head: int
    d_ff: int
    vocab_size: int = 256
    rope_base: float = 1e4
    norm_eps: float = 1e-6
    act_quant: bool = True
    ngram_max: int = 0  # n-gram embeddings of 2 to ngram_max bytes; 0: none
    ngram_bits: int = 0  # 2^ngram_bits rows for each length
    dense: bool = False  # nothing is quantized; requires act_quant=False
    clipped_gradients: bool = False  # straight-through estimator: clipped instead of identity

    @classmethod
    def of_size(cls, size: str) -> Config:
        """The shape with about this many parameters: "1m", "3m", "10m", "25m", "85m", "200m" or "680m"."""
        config = ffi.new("bb_config *")
        call(lib.bb_config_of_size, size.encode(), config)
        return cls._of(config)

    @classmethod
    def _of(cls, config: Any) -> Config:
        names = [f.name for f in dataclasses.fields(cls) if f.name != "clipped_gradients"]
        return cls(clipped_gradients=config.ste == lib.BB_STE_CLIPPED, **{name: getattr(config, name) for name in names})

    def _pointer(self) -> Any:
        values = dataclasses.asdict(self)
        values["ste"] = lib.BB_STE_CLIPPED if values.pop("clipped_gradients") else lib.BB_STE_IDENTITY
        return ffi.new("bb_config *", values)


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicts a text: fewer bits are better."""

    bits: float
    size: int
    byte_bits: npt.NDArray[np.float32] | None = None
    """(size): the bits of each byte, if requested"""
    byte_ranks: npt.NDArray[np.uint8] | None = None
    """(size): how many bytes the model considered likelier, if requested"""

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.size if self.size else 0.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    bits_per_byte: float
    loss: float
    """nats"""
    bytes: int
    files: int
    seconds: float


class Model:
    """A language model over bytes. Use a model from one thread at a time."""

    def __init__(self, pointer: Any, device: Device):
        self._handle = Handle(self, pointer, lib.bb_model_free, device._handle)
        self.device = device

    @property
    def _pointer(self) -> Any:
        return self._handle.pointer

    @classmethod
    def create(cls, config: Config, *, seed: int = 0, device: Device | None = None) -> Model:
        """A model with random weights, to train."""
        device = device or default_device()
        out = ffi.new("bb_model **")
        call(lib.bb_model_create, device._pointer, config._pointer(), seed, out)
        return cls(out[0], device)

    @classmethod
    def load(cls, path: Path, *, trainable: bool = False, n_head: int = 0, device: Device | None = None) -> Model:
        """Opens a model file of any format, a Hugging Face folder, a run directory (its latest valid checkpoint), or RUN/best.
        trainable: with f32 weights, for training. n_head: for files that do not store it."""
        device = device or default_device()
        options = Options("bb_import_options", n_head=n_head, for_inference=not trainable)
        out, found = ffi.new("bb_model **"), ffi.new("char[4096]")

        def load_one(user: Any, candidate: Any, error: Any) -> int:
            return int(lib.bb_model_import(device._pointer, candidate, options.pointer, out, error))

        call(lib.bb_run_named_checkpoint, path_bytes(path), found, len(found))
        if os.path.isdir(ffi.string(found)) and not lib.bb_is_hf_folder(found):
            callbacks = Callbacks()
            load = callbacks.make("bb_status(void *, const char *, bb_error *)", load_one, on_error=lib.BB_ERR_INTERNAL)
            call(lib.bb_run_latest_valid, found, load, ffi.NULL, ffi.NULL)
        else:
            call(lib.bb_model_import, device._pointer, found, options.pointer, out)
        return cls(out[0], device)

    def save(self, path: Path) -> None:
        call(lib.bb_model_save, self._pointer, path_bytes(path))

    def export_packed(self, path: Path) -> None:
        """Saves a model that was not loaded as trainable, with two bits per weight."""
        call(lib.bb_model_export_packed, self._pointer, path_bytes(path))

    @property
    def config(self) -> Config:
        return Config._of(lib.bb_model_config(self._pointer))

    @property
    def parameters(self) -> int:
        return int(lib.bb_model_parameters(self._pointer))

    @property
    def trained_length(self) -> int:
        """The longest sequence that the model was trained on, in bytes."""
        return int(lib.bb_model_trained_length(self._pointer))

    @property
    def chat_template(self) -> str | None:
        """The text of one message of a chat, with {role} and {content}; None: the model has none. Can be set; `save` keeps it."""
        text = lib.bb_model_chat_template(self._pointer)
        return ffi.string(text).decode() if text else None

    @chat_template.setter
    def chat_template(self, text: str | None) -> None:
        call(lib.bb_model_set_chat_template, self._pointer, ffi.NULL if text is None else text.encode())

    def __repr__(self) -> str:
        return f"<bitbyte.Model of {self.parameters:,} parameters>"

    # ---- passes

    def logits(self, x: Text | npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Logits of the byte after each byte: a text, or uint8 (T,), gives (T, 256); uint8 (B, T) gives (B, T, 256)."""
        if isinstance(x, (str, bytes, bytearray, memoryview)):
            array = np.frombuffer(as_bytes(x), np.uint8)
        else:
            array = as_byte_array(x)
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(f"expected bytes of shape (T,) or (B, T); found {array.shape}")
        batch, length = array.shape if array.ndim == 2 else (1, len(array))
        out = np.empty((*array.shape, self.config.vocab_size), np.float32)
        call(lib.bb_model_forward, self._pointer, ffi.from_buffer("uint8_t[]", array), batch, length, ffi.from_buffer("float[]", out))
        return out

    def loss(self, x: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Mean cross-entropy in nats of the targets y after each byte of x, both uint8 (B, T)."""
        arrays = [as_byte_array(a) for a in (x, y)]
        if arrays[0].ndim != 2 or arrays[0].shape != arrays[1].shape:
            raise ValueError(f"expected x and y of one shape (B, T); found {arrays[0].shape} and {arrays[1].shape}")
        batch, length = arrays[0].shape
        buffers = [ffi.from_buffer("uint8_t[]", a) for a in arrays]
        given = ffi.new("bb_train_batch *", {"x": buffers[0], "y": buffers[1], "batch_size": batch, "seq_len": length})
        loss = ffi.new("double *")
        call(lib.bb_model_loss, self._pointer, given, loss)
        return float(loss[0])

    # ---- weights

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all weights."""
        info, shapes = ffi.new("bb_tensor_info *"), {}
        for index in range(lib.bb_model_tensor_count(self._pointer)):
            call(lib.bb_model_tensor_info, self._pointer, index, info)
            shapes[text(info.name)] = tuple(info.shape[i] for i in range(info.rank))
        return shapes

    def _shape(self, name: str) -> tuple[int, ...]:
        try:
            return self.tensors[name]
        except KeyError:
            raise KeyError(f"no weight '{name}'; Model.tensors lists the names") from None

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """A copy of a weight. A ternary weight of a model that is not trainable is the scale times -1, 0 or 1."""
        out = np.empty(self._shape(name), np.float32)
        call(lib.bb_model_get_tensor, self._pointer, name.encode(), ffi.from_buffer("float[]", out), out.size)
        return out

    def set_tensor(self, name: str, values: npt.ArrayLike) -> None:
        array, shape = np.ascontiguousarray(values, np.float32), self._shape(name)
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}; found {array.shape}")
        call(lib.bb_model_set_tensor, self._pointer, name.encode(), ffi.from_buffer("float[]", array), array.size)

    # ---- uses

    def generate(self, prompt: Text = b"", **options: Any) -> Generation:
        """Continues a text. The result is an iterator of bytes, each of length 1: b"".join(model.generate("Once", seed=1)).

        Options: max_new_bytes (300), temperature (0.9; 0: the likeliest byte), top_k, top_p, min_p, repetition_penalty,
        repetition_window, seed, stops (texts that end generation and are not part of the output), context_length, kv_cache
        ("int6", "int8", "f32"), and on_logits: a function that receives the 256 logits before each draw, and may change them."""
        from bitbyte._generate import Generation

        return Generation(self, as_bytes(prompt), options)

    def generate_many(self, prompts: Iterable[Text], *, parallel: int = 16, **options: Any) -> list[bytes]:
        """Continues many texts at once; each gets the same result as alone. The seeds are seed, seed + 1, …"""
        from bitbyte._generate import generate_many

        return generate_many(self, [as_bytes(p) for p in prompts], parallel, options)

    def score(self, text: Text, *, context: Text = b"", per_byte: bool = False, ranks: bool = False, seq_len: int = 0) -> Score:
        """How well the model predicts a text. context: text before it, not scored; empty: a newline. per_byte, ranks: also for each
        byte. seq_len: context length in bytes; 0: the trained length, at most 2048."""
        return self.score_many([text], context=context, per_byte=per_byte, ranks=ranks, seq_len=seq_len)[0]

    def score_many(
        self, texts: Iterable[Text], *, context: Text = b"", per_byte: bool = False, ranks: bool = False, seq_len: int = 0
    ) -> list[Score]:
        """The same for many texts at once; short ones share passes of the model."""
        data, stop = [as_bytes(t) for t in texts], StopFlag()
        bits = [np.zeros(len(d), np.float32) if per_byte else None for d in data]
        places = [np.zeros(len(d), np.uint8) if ranks else None for d in data]
        before = ffi.from_buffer("uint8_t[]", as_bytes(context))
        given, kept = ffi.new("bb_score_text[]", max(len(data), 1)), []
        for one, d, b, p in zip(given, data, bits, places):
            kept.append(ffi.from_buffer("uint8_t[]", d))
            one.text.data, one.text.size = kept[-1], len(d)
            one.context.data, one.context.size = before, len(before)
            if b is not None and len(d):
                one.byte_bits = ffi.from_buffer("float[]", b)
            if p is not None and len(d):
                one.byte_ranks = ffi.from_buffer("uint8_t[]", p)
        options = Options("bb_score_options", seq_len=seq_len, stop=stop.pointer)
        with interruptible(stop.set):
            call(lib.bb_score, self._pointer, given, len(data), options.pointer)
        return [Score(one.bits, len(d), b, p) for one, d, b, p in zip(given, data, bits, places)]

    def evaluate(self, data: Path, *, on_progress: Callable[[int, int, float], Any] | None = None, **options: Any) -> Evaluation:
        """Scores every byte of a text file, or of a pack's val_*.bin, once. on_progress(bytes done, total bytes or 0, bits per byte so
        far). Options are members of bb_eval_options: seq_len, batch_size, sliding, cached, max_batches."""
        callbacks, stop, result = Callbacks(), StopFlag(), ffi.new("bb_eval_result *")
        o = Options("bb_eval_options", options, stop=stop.pointer)
        if on_progress:
            o.pointer.on_progress = callbacks.make(
                "void(void *, int64_t, int64_t, double)", lambda user, done, total, bpb: on_progress(done, total, bpb), then=stop.set)
        try:
            with interruptible(stop.set):
                call(lib.bb_evaluate, self._pointer, path_bytes(data), o.pointer, result)
        finally:
            callbacks.check()
        return Evaluation(result.bpb, result.loss, result.bytes, result.files, result.seconds)


def describe(path: Path) -> dict[str, Any]:
    """Describes a model file: configuration, parameters, training state, and the scale and shares of -1, 0 and 1 of each weight."""
    out = ffi.new("char **")
    call(lib.bb_describe_file, path_bytes(path), ffi.NULL, out)
    try:
        description: dict[str, Any] = json.loads(text(out[0]))
        return description
    finally:
        lib.bb_string_free(out[0])
