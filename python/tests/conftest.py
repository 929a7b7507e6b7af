# SPDX-License-Identifier: MIT
import os
import pathlib
import random

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that tests that run beside each other do not wait for each other

import bitbyte  # noqa: E402

CONFIG = bitbyte.Config(n_layer=2, d_model=32, n_head=2, n_kv_head=1, d_ff=64)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("data") / "corpus.txt"
    pick = random.Random(1)
    words = ["the river", "a lantern", "my neighbour", "the old mill", "waits for", "sings to", "remembers"]
    path.write_text(" ".join(pick.choice(words) for _ in range(8000)))
    return path


@pytest.fixture(scope="session")
def run(corpus: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run directory of a model that has learned a little."""
    out = tmp_path_factory.mktemp("runs") / "first"
    bitbyte.train(bitbyte.Model.create(CONFIG, seed=1), corpus, steps=60, seq_len=64, batch_size=8, out=out)
    return out


@pytest.fixture(scope="session")
def model(run: pathlib.Path) -> bitbyte.Model:
    return bitbyte.load(run)
