# SPDX-License-Identifier: MIT
import gc
import math
import pathlib

import numpy as np
import pytest

import bitbyte

TEXT = b"the river waits for a lantern"


def test_loads_what_it_saves(model: bitbyte.Model, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trainable = bitbyte.load(run, trainable=True)
    trainable.save(tmp_path / "m.safetensors")
    model.export_packed(tmp_path / "p.safetensors")
    assert (tmp_path / "p.safetensors").stat().st_size < (tmp_path / "m.safetensors").stat().st_size
    for other in ("m.safetensors", "p.safetensors"):
        again = bitbyte.load(tmp_path / other)
        assert again.config == model.config and again.parameters == model.parameters and again.trained_length == 64
        assert np.array_equal(again.logits(TEXT), model.logits(TEXT))
    assert bitbyte.describe(tmp_path / "p.safetensors")["config"]["d_model"] == 32


def test_a_chat_template_stays_with_the_model(model: bitbyte.Model, tmp_path: pathlib.Path) -> None:
    assert model.chat_template is None
    model.chat_template = "{role}: {content} é\n"
    model.export_packed(tmp_path / "p.safetensors")
    assert bitbyte.load(tmp_path / "p.safetensors").chat_template == "{role}: {content} é\n"
    with pytest.raises(bitbyte.ArgumentError, match="expected a text after {content}"):
        model.chat_template = "{role}: {content}"
    assert model.chat_template == "{role}: {content} é\n"
    model.chat_template = None
    assert model.chat_template is None


def test_a_run_directory_is_its_latest_whole_checkpoint(run: pathlib.Path, model: bitbyte.Model, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for file in run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "step-00000099.safetensors").write_bytes(b"damaged")
    assert np.array_equal(bitbyte.load(copy).logits(TEXT), model.logits(TEXT))
    (tmp_path / "empty").mkdir()
    with pytest.raises(bitbyte.Error, match="empty"):
        bitbyte.load(tmp_path / "empty")


def test_logits(model: bitbyte.Model) -> None:
    one = model.logits(TEXT)
    assert one.shape == (len(TEXT), 256) and one.dtype == np.float32 and np.isfinite(one).all()
    array = np.frombuffer(TEXT, np.uint8)
    assert np.array_equal(model.logits(array), one) and np.array_equal(model.logits(TEXT.decode()), one)
    two = model.logits(np.stack([array, array[::-1]]))
    assert two.shape == (2, len(TEXT), 256) and np.array_equal(two[0], one) and not np.array_equal(two[1], one)
    assert np.array_equal(model.logits(array.astype(np.int64)[:, None].repeat(2, 1).T), np.stack([one, one]))  # not contiguous, other type
    for wrong in (np.zeros((1, 2, 3), np.uint8), np.array([0.5]), np.array([256]), np.array([-1]), b"", []):
        with pytest.raises(ValueError):
            model.logits(wrong)


def test_loss_and_score_agree_with_the_logits(model: bitbyte.Model) -> None:
    x = np.frombuffer(b"\n" + TEXT[:-1], np.uint8)
    y = np.frombuffer(TEXT, np.uint8)
    logits = model.logits(x).astype(np.float64)
    nats = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[np.arange(len(y)), y]
    assert model.loss(x[None], y[None]) == pytest.approx(nats.mean(), rel=1e-5)
    score = model.score(TEXT, per_byte=True, ranks=True)
    assert score.size == len(TEXT) and score.byte_bits is not None and score.byte_ranks is not None
    assert np.allclose(score.byte_bits, nats / math.log(2), atol=1e-3) and score.bits == pytest.approx(score.byte_bits.sum(), rel=1e-4)
    assert np.array_equal(score.byte_ranks, (logits > logits[np.arange(len(y)), y][:, None]).sum(1))
    assert score.bits_per_byte == pytest.approx(score.bits / len(TEXT))
    with pytest.raises(ValueError):
        model.loss(x[None], y[None, :3])
    for wrong in (np.full((1, 3), 300), np.full((1, 3), -1), np.full((1, 3), 65.0)):
        with pytest.raises(ValueError, match="integers from 0 to 255"):
            model.loss(wrong, np.zeros((1, 3), np.uint8))


def test_scores_many_texts(model: bitbyte.Model) -> None:
    likely, odd, empty = model.score_many([TEXT, "zq#!7 kk%", b""])
    assert likely.bits_per_byte < odd.bits_per_byte and empty.bits == 0 and likely.byte_bits is None
    assert model.score_many([]) == []
    assert model.score(b"lantern", context=b"the river waits for a ").bits != model.score(b"lantern").bits
    with pytest.raises(bitbyte.ArgumentError, match="seq_len 1"):
        model.score(b"a", seq_len=1)


def test_evaluates(model: bitbyte.Model, corpus: pathlib.Path) -> None:
    seen: list[tuple[int, int, float]] = []
    result = model.evaluate(corpus, seq_len=64, batch_size=8, on_progress=lambda *told: seen.append(told))
    assert result.bits_per_byte < 5 and result.bytes == corpus.stat().st_size - 1 and result.files == 1
    assert seen[-1][0] == result.bytes == seen[-1][1] and seen[-1][2] == pytest.approx(result.bits_per_byte)

    def fail(*told: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.evaluate(corpus, seq_len=64, on_progress=fail)


def test_weights(run: pathlib.Path, model: bitbyte.Model) -> None:
    trainable = bitbyte.load(run, trainable=True)
    name = "norm_f.weight"
    assert trainable.tensors[name] == (32,)
    before = trainable.logits(TEXT)
    trainable.set_tensor(name, 2 * trainable.tensor(name))
    assert not np.array_equal(trainable.logits(TEXT), before)
    ternary = model.tensor("blocks.0.attn.q_proj.weight")
    assert len(np.unique(np.abs(ternary))) <= 2
    for wrong, error in ((np.zeros(31), ValueError), (np.full(32, np.nan), bitbyte.ArgumentError)):
        with pytest.raises(error):
            trainable.set_tensor(name, wrong)
    with pytest.raises(KeyError, match="no weight 'nothing'"):
        model.tensor("nothing")


def test_errors_have_the_librarys_words(tmp_path: pathlib.Path) -> None:
    with pytest.raises(bitbyte.FileError, match="nothing.safetensors") as caught:
        bitbyte.load(tmp_path / "nothing.safetensors")
    assert isinstance(caught.value, OSError) and caught.value.status == "io"
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(bitbyte.FormatError):
        bitbyte.load(tmp_path / "bad.safetensors")
    with pytest.raises(bitbyte.ArgumentError, match="d_model"):
        bitbyte.Model.create(bitbyte.Config(n_layer=1, d_model=7, n_head=2, n_kv_head=2, d_ff=16))
    with pytest.raises(bitbyte.Error, match="unknown device|no device"):
        bitbyte.Device("nothing")


def test_devices_and_sizes() -> None:
    device = bitbyte.Device("ref", threads=1)
    assert device.threads == 1 and "ref" in repr(device)
    config = bitbyte.Config.of_size("1m")
    assert config.vocab_size == 256 and config.act_quant
    model = bitbyte.Model.create(bitbyte.Config(n_layer=1, d_model=16, n_head=2, n_kv_head=2, d_ff=16), seed=3, device=device)
    del device
    gc.collect()
    assert model.logits(b"a").shape == (1, 256)  # the model keeps its device
