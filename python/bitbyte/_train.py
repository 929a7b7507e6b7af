# SPDX-License-Identifier: MIT
"""Training."""
from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable

from bitbyte._library import Callbacks, Options, StoppedError, call, ffi, interruptible, lib, path_bytes, text
from bitbyte._model import Model, Path

OPTIMIZERS = {"adamw": "BB_OPTIM_ADAMW", "adamw8bit": "BB_OPTIM_ADAMW8BIT", "muon": "BB_OPTIM_MUON"}
RECIPES = {"bitbyte": "BB_RECIPE_BITBYTE", "original": "BB_RECIPE_ORIGINAL"}
KINDS = {"BB_TRAIN_STEP": "step", "BB_TRAIN_VALIDATION": "validation", "BB_TRAIN_SAVED": "saved", "BB_TRAIN_NOTICE": "notice"}


@dataclasses.dataclass(frozen=True)
class TrainEvent:
    kind: str
    """"step": after each; "validation": val_bpb was measured; "saved": path holds a checkpoint; "notice": message is for the user"""
    step: int
    total_steps: int
    seq_len: int
    loss: float
    """nats"""
    bpb: float
    lr: float
    grad_norm: float
    val_bpb: float
    bytes_per_second: float
    elapsed_seconds: float
    eta_seconds: float
    bytes_seen: int
    skipped_steps: int
    best_step: int
    path: str
    message: str


@dataclasses.dataclass(frozen=True)
class Trained:
    step: int
    total_steps: int
    stopped: bool
    """on_event ended the run"""
    best_step: int | None
    """with patience: the step of the best validation"""
    best_bpb: float | None


def _choose(what: str, names: dict[str, str], given: str) -> int:
    if given not in names:
        raise ValueError(f"{what}: expected one of {', '.join(names)}; found {given!r}")
    return int(getattr(lib, names[given]))


def _event(event: Any) -> TrainEvent:
    values = {f.name: getattr(event, f.name) for f in dataclasses.fields(TrainEvent)}
    kind = KINDS[ffi.string(ffi.cast("bb_train_event_kind", event.kind))]
    return TrainEvent(**{**values, "kind": kind, "path": text(event.path), "message": text(event.message)})


def train(
    model: Model,
    data: Path,
    *,
    steps: int,
    seq_len: int = 256,
    batch_size: int = 8,
    grad_accum: int = 1,
    out: Path | None = None,
    resume: Path | None = None,
    val_data: Path | None = None,
    recipe: str = "bitbyte",
    optimizer: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    seed: int = 0,
    on_event: Callable[[TrainEvent], object] | None = None,
    **options: Any,
) -> Trained:
    """Trains a model that was created or loaded as trainable.

    data: one file of plain bytes, a folder of shards, or a glob. out: a run directory for checkpoints and metrics; None: writes
    nothing. resume: a checkpoint or run directory of the same model to continue from; the result is bit-identical to that of a run that
    never stopped. optimizer: "muon", "adamw" or "adamw8bit"; None, as for lr and weight_decay: the recipe's. on_event receives each
    TrainEvent before training continues, may use the model, and ends training by returning False. Ctrl-C, or an exception in on_event,
    ends the run after the step, saves it if `out` is given, and is raised. Options are members of bb_train_options: val_every, patience,
    save_every, grad_clip, …"""
    callbacks = Callbacks()
    moments = Options("bb_optimizer_options")
    o = Options("bb_train_options")
    lib.bb_recipe_options(_choose("recipe", RECIPES, recipe), o.pointer, moments.pointer)
    if optimizer is not None:
        moments.pointer.kind = _choose("optimizer", OPTIMIZERS, optimizer)
        if lr is None and optimizer != "muon":  # its rate is only for matrices
            moments.pointer.lr = Options("bb_optimizer_options").pointer.lr
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if value is not None:
            setattr(moments.pointer, name, value)
    o.set({**options, "steps": steps, "seq_len": seq_len, "batch_size": batch_size, "grad_accum": grad_accum, "out_dir": out, "val_data": val_data})

    stopped = False
    trainer: Any = ffi.NULL

    def stop() -> None:
        lib.bb_trainer_request_stop(trainer)

    def take_event(user: Any, event: Any) -> None:
        nonlocal stopped
        if on_event and callbacks.error is None and on_event(_event(event)) is False:
            stopped = True
            stop()

    o.pointer.on_event = callbacks.make("void(void *, const bb_train_event *)", take_event, then=stop)
    longest = seq_len or lib.bb_seq_len_for_step(steps - 1, steps, o.pointer.seq_len_cap)
    with contextlib.ExitStack() as stack:

        def opened(function: Any, kind: str, free: Any, *arguments: Any) -> Any:
            pointer = ffi.new(f"{kind} **")
            call(function, *arguments, pointer)
            stack.callback(free, pointer[0])
            return pointer[0]

        dataset = opened(lib.bb_byte_shard_dataset_open, "bb_dataset", lib.bb_dataset_close, path_bytes(data), longest, seed, 0, 1)
        state = opened(lib.bb_optimizer_create, "bb_optimizer", lib.bb_optimizer_free, model._pointer, moments.pointer)
        trainer = opened(lib.bb_trainer_create, "bb_trainer", lib.bb_trainer_free, model._pointer, state, ffi.NULL, o.pointer)
        if resume is not None:
            call(lib.bb_trainer_resume, trainer, path_bytes(resume), True)
        try:
            with interruptible(stop):
                call(lib.bb_trainer_train, trainer, dataset)
        except StoppedError:
            callbacks.check()
            if not stopped:
                raise
        callbacks.check()
        best_bpb = ffi.new("double *")
        best = lib.bb_trainer_best_step(trainer, best_bpb)
        return Trained(lib.bb_trainer_step(trainer), lib.bb_trainer_total_steps(trainer), stopped, best if best >= 0 else None, best_bpb[0] if best >= 0 else None)
