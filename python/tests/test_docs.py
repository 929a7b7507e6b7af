# SPDX-License-Identifier: MIT
import pathlib
import re

import pytest


def test_the_guides_code_runs(corpus: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/QUICK_START.md, in a folder with the run and the data that it names."""
    guide = (pathlib.Path(__file__).parents[2] / "docs" / "QUICK_START.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.M | re.S)
    assert len(blocks) > 3
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(run)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shard_00000.bin").write_bytes(corpus.read_bytes())
    (tmp_path / "data" / "val_00000.bin").write_bytes(corpus.read_bytes()[:3000])
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "QUICK_START.md", "exec"), {"__name__": "guide"})
