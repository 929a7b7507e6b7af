# SPDX-License-Identifier: MIT
"""TensorBoard's own reader opens what `train --tensorboard` writes: check_tensorboard.py TEXT WORK. Run by `make test-interop`."""
import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from bitbyte import finish, run, tell

text, work = sys.argv[1], pathlib.Path(sys.argv[2])
out = work / "tensorboard"
options = ["--n_layer", 2, "--d_model", 32, "--n_head", 2, "--d_ff", 48, "--seq_len", 32, "--batch_size", 2, "--grad_accum", 1,
           "--steps", 60, "--log_every", 5, "--save_every", 20, "--val_data", text, "--val_every", 20, "--val_batches", 2,
           "--sample_every", 20, "--tensorboard"]
run("train", "--data", text, "--out", out, *options, "--stop_at", 33)
run("train", "--resume", out)
lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

board = EventAccumulator(str(out), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
board.Reload()
scalars = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
for tag, key in ("train/loss", "loss"), ("train/lr", "lr"), ("train/grad_norm", "grad_norm"), ("validation/bpb", "val_bpb"):
    expected = [(line["step"], line[key]) for line in lines if key in line]
    found = scalars.get(tag, [])
    good = [s for s, _ in found] == [s for s, _ in expected] and all(abs(a - b) <= 1e-6 * abs(b) for (_, a), (_, b) in zip(found, expected))
    tell(good, f"TensorBoard reads {tag} of a run that was resumed", f"{len(found)} values")
histograms = board.Tags()["histograms"]
value = board.Histograms("weights/blocks.0.attn.q_proj.weight")
tell(len(histograms) == 18 and [h.step for h in value] == [20, 40, 60] and value[0].histogram_value.num == 1024 and
     sum(value[0].histogram_value.bucket) == 1024, "histograms of the weights", f"{len(histograms)} tensors")
samples = board.Tensors("sample")
written = {line["step"]: line["sample"] for line in lines if "sample" in line}
tell({s.step: s.tensor_proto.string_val[0].decode() for s in samples} == written and len(written) == 3, "samples, as text", f"{len(samples)}")
metadata = board.SummaryMetadata("_hparams_/session_start_info")
content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
hparams = content.session_start_info.hparams
tell(metadata.plugin_data.plugin_name == "hparams" and hparams["n_layer"].number_value == 2 and hparams["optim"].string_value == "muon",
     "hyperparameters", f"{len(hparams)}")
finish()
