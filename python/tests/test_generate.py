# SPDX-License-Identifier: MIT
import resource
import signal
import threading

import numpy as np
import pytest

import bitbyte

PROMPT = "the river "


def test_generates_bytes(model: bitbyte.Model) -> None:
    generation = model.generate(PROMPT, max_new_bytes=40, temperature=0.8, seed=7)
    pieces = list(generation)
    assert len(pieces) == 40 and all(isinstance(p, bytes) and len(p) == 1 for p in pieces)
    assert generation.finish == "length" and generation.metrics is not None
    assert generation.metrics.prompt_bytes == len(PROMPT) and generation.metrics.new_bytes == 40 and generation.metrics.mean_logprob < 0
    assert list(generation) == []
    again = b"".join(model.generate(PROMPT.encode(), max_new_bytes=40, temperature=0.8, seed=7))
    assert again == b"".join(pieces) != b"".join(model.generate(PROMPT, max_new_bytes=40, temperature=0.8, seed=8))


def test_the_likeliest_byte_is_that_of_the_logits(model: bitbyte.Model) -> None:
    text = PROMPT.encode()
    for byte in model.generate(PROMPT, max_new_bytes=20, temperature=0, kv_cache="f32"):
        assert byte[0] == model.logits(text)[-1].argmax()
        text += byte


def test_stop_texts(model: bitbyte.Model) -> None:
    whole = b"".join(model.generate(PROMPT, max_new_bytes=60, temperature=0))
    stop = whole[20:24]
    generation = model.generate(PROMPT, max_new_bytes=60, temperature=0, stops=["never there", stop])
    assert b"".join(generation) == whole[: whole.find(stop)] and generation.finish == "stop"
    assert b"".join(model.generate(PROMPT, max_new_bytes=60, temperature=0, stops=stop)) == whole[: whole.find(stop)]


def test_logits_may_be_changed(model: bitbyte.Model) -> None:
    def only_x(logits: np.ndarray) -> None:
        assert logits.shape == (256,)
        logits[:] = -np.inf
        logits[ord("x")] = 0

    assert b"".join(model.generate(PROMPT, max_new_bytes=5, on_logits=only_x)) == b"xxxxx"

    def fail(logits: np.ndarray) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        list(model.generate(PROMPT, on_logits=fail))


def test_errors_are_raised(model: bitbyte.Model) -> None:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), before[1]))
    try:
        generation = model.generate(PROMPT, max_new_bytes=1 << 24, context_length=1 << 24, kv_cache="f32")
        with pytest.raises(bitbyte.OutOfMemoryError, match="no memory"):
            list(generation)
        assert generation.finish == "error" and list(generation) == []
        with pytest.raises(bitbyte.OutOfMemoryError, match="no memory"):
            model.generate_many([PROMPT], max_new_bytes=1 << 24, context_length=1 << 24, kv_cache="f32")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_many_texts(model: bitbyte.Model) -> None:
    prompts = [PROMPT, b"a lantern ", "my "] * 3
    alone = [b"".join(model.generate(p, max_new_bytes=30, seed=5 + i)) for i, p in enumerate(prompts)]
    assert model.generate_many(prompts, max_new_bytes=30, seed=5, parallel=4) == alone
    assert model.generate_many([]) == []


def test_a_loop_that_is_left(model: bitbyte.Model) -> None:
    for byte in (generation := model.generate(PROMPT, max_new_bytes=10**9)):
        if byte:
            break
    generation.close()
    generation.close()
    assert list(generation) == []
    with model.generate(PROMPT, max_new_bytes=10**9) as other:
        assert next(other)
    with pytest.raises(StopIteration):
        next(other)


def test_wrong_options(model: bitbyte.Model) -> None:
    with pytest.raises(TypeError, match="no option 'top_q'; it has context_length"):
        model.generate(PROMPT, top_q=3)
    with pytest.raises(bitbyte.ArgumentError, match="temperature"):
        model.generate(PROMPT, temperature=-1)
    with pytest.raises(ValueError, match="int6, int8, f32"):
        model.generate(PROMPT, kv_cache="int4")


def test_ctrl_c_ends_a_text(model: bitbyte.Model) -> None:
    generation = model.generate(PROMPT, max_new_bytes=10**9)
    with pytest.raises(KeyboardInterrupt):
        for i, _ in enumerate(generation):
            if i == 10:
                signal.raise_signal(signal.SIGINT)
    generation.close()
    assert len(b"".join(model.generate(PROMPT, max_new_bytes=5))) == 5


def test_other_threads_run_meanwhile(model: bitbyte.Model, run: object) -> None:
    """A thread with a model of its own writes while this one does."""
    other = bitbyte.load(run, device=bitbyte.Device(threads=1))  # type: ignore[arg-type]
    expected, found = b"".join(model.generate(PROMPT, max_new_bytes=200, seed=1)), []
    thread = threading.Thread(target=lambda: found.append(b"".join(other.generate(PROMPT, max_new_bytes=200, seed=1))))
    thread.start()
    assert b"".join(model.generate(PROMPT, max_new_bytes=200, seed=1)) == expected
    thread.join()
    assert found == [expected]
