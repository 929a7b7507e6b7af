# SPDX-License-Identifier: MIT
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import bitbyte
from conftest import CONFIG

TEXT = b"the old mill sings to"


def fresh() -> bitbyte.Model:
    return bitbyte.Model.create(CONFIG, seed=1)


def test_learns_and_tells(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    events: list[bitbyte.TrainEvent] = []
    model = fresh()
    done = bitbyte.train(model, corpus, steps=30, seq_len=64, val_data=corpus, val_every=10, val_batches=2, out=tmp_path / "run", on_event=events.append)
    steps = [e for e in events if e.kind == "step"]
    assert [e.step for e in steps] == list(range(1, 31)) and steps[-1].loss < steps[0].loss and steps[-1].total_steps == 30
    assert steps[-1].bpb == pytest.approx(steps[-1].loss / np.log(2)) and steps[-1].bytes_seen == 30 * 64 * 8
    assert [e.step for e in events if e.kind == "validation"] == [10, 20, 30]
    saved = [e for e in events if e.kind == "saved"]
    assert done == bitbyte.Trained(30, 30, False, None, None) and os.path.exists(saved[-1].path)
    assert np.array_equal(bitbyte.load(tmp_path / "run").logits(TEXT), model.logits(TEXT))


def test_a_resumed_run_is_the_same_run(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = fresh()
    bitbyte.train(whole, corpus, steps=20, seq_len=64)
    first = fresh()
    assert bitbyte.train(first, corpus, steps=20, seq_len=64, stop_at=8, out=tmp_path / "run").step == 8
    second = fresh()
    assert bitbyte.train(second, corpus, steps=20, seq_len=64, resume=tmp_path / "run").step == 20
    assert np.array_equal(whole.logits(TEXT), second.logits(TEXT))


def test_on_event_ends_it(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = bitbyte.train(fresh(), corpus, steps=1000, seq_len=64, out=tmp_path / "run", on_event=lambda e: e.step < 7)
    assert done.stopped and done.step == 7
    assert bitbyte.load(tmp_path / "run").parameters == fresh().parameters

    def fail(event: bitbyte.TrainEvent) -> None:
        if event.step == 3:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        bitbyte.train(fresh(), corpus, steps=1000, seq_len=64, out=tmp_path / "other", on_event=fail)
    assert list((tmp_path / "other").glob("step-*3.safetensors"))  # saved all the same


def test_the_model_may_write_meanwhile(corpus: pathlib.Path) -> None:
    model, plain, samples = fresh(), fresh(), []

    def sample(event: bitbyte.TrainEvent) -> None:
        if event.kind == "step" and event.step % 5 == 0:
            samples.append(b"".join(model.generate(b"the ", max_new_bytes=10, seed=1)))

    bitbyte.train(model, corpus, steps=10, seq_len=64, on_event=sample)
    bitbyte.train(plain, corpus, steps=10, seq_len=64)
    assert [len(s) for s in samples] == [10, 10] and np.array_equal(model.logits(TEXT), plain.logits(TEXT))


def test_recipes_and_options(corpus: pathlib.Path) -> None:
    rates = {}

    def keep(name: str) -> object:
        return lambda e: rates.setdefault(name, []).append(e.lr) if e.kind == "step" else None

    for name, given in {"default": {}, "original": {"recipe": "original"}, "adamw": {"optimizer": "adamw"}, "own": {"optimizer": "adamw", "lr": 0.01}}.items():
        bitbyte.train(fresh(), corpus, steps=2, seq_len=32, warmup_steps=0, lr_schedule=1, on_event=keep(name), **given)  # type: ignore[arg-type]
    assert {k: v[0] for k, v in rates.items()} == pytest.approx({"default": 0.04, "original": 2e-4, "adamw": 2e-4, "own": 0.01})
    patient = bitbyte.train(fresh(), corpus, steps=60, seq_len=32, lr=0.5, val_data=corpus, val_every=2, val_batches=1, patience=2)
    assert patient.best_step is not None and patient.best_bpb is not None and patient.step <= 60
    with pytest.raises(TypeError, match="no option 'val_evry'"):
        bitbyte.train(fresh(), corpus, steps=1, val_evry=1)
    with pytest.raises(ValueError, match="muon"):
        bitbyte.train(fresh(), corpus, steps=1, optimizer="sgd")
    with pytest.raises(bitbyte.ArgumentError, match="steps 0"):
        bitbyte.train(fresh(), corpus, steps=0, seq_len=32)
    with pytest.raises(bitbyte.Error, match="nothing"):
        bitbyte.train(fresh(), "nothing", steps=1)


def test_a_model_for_inference_is_refused(model: bitbyte.Model, corpus: pathlib.Path) -> None:
    with pytest.raises(bitbyte.ArgumentError, match="inference"):
        bitbyte.train(model, corpus, steps=1)


def test_ctrl_c_in_on_event(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def press(event: bitbyte.TrainEvent) -> None:
        if event.kind == "step" and event.step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        bitbyte.train(fresh(), corpus, steps=10**6, seq_len=64, out=tmp_path / "run", on_event=press)
    assert bitbyte.load(tmp_path / "run").trained_length == 64
    assert signal.set_wakeup_fd(-1) == -1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not [t for t in threading.enumerate() if t.name == "bitbyte-interrupt"]


PROGRAM = """
import sys, bitbyte
corpus, endless, out, what = sys.argv[1:]
model = bitbyte.Model.create(bitbyte.Config(n_layer=2, d_model=32, n_head=2, n_kv_head=1, d_ff=64))
begin = lambda *told: print("begun", flush=True)
try:
    if what == "train":  # the first validation never ends
        bitbyte.train(model, corpus, steps=9, seq_len=64, val_data=endless, val_every=1, val_batches=10**9, out=out, on_event=begin)
    elif what == "evaluate":
        begin()
        model.evaluate(endless, seq_len=32)
    else:
        begin()
        model.score_many([open(corpus, "rb").read()] * 20000)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("what", ["train", "evaluate", "score"])
def test_ctrl_c_from_outside(corpus: pathlib.Path, tmp_path: pathlib.Path, what: str) -> None:
    """In one call into C that would take very long, and calls nothing in Python."""
    (tmp_path / "endless").mkdir()
    with open(tmp_path / "endless" / "val_00000.bin", "wb") as file:
        file.truncate(1 << 40)  # a hole takes no room
    arguments = [sys.executable, "-c", PROGRAM, str(corpus), str(tmp_path / "endless"), str(tmp_path / "run"), what]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "begun\n"
            time.sleep(0.2)  # into C; wherever it comes, the outcome is the same
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=120)[0] == "interrupted\n"
        finally:
            process.kill()
    assert process.returncode == 0
    assert what != "train" or bitbyte.load(tmp_path / "run").parameters == fresh().parameters
