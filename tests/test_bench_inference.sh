#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bench/random_model.py's GGUF files, read back according to the format's description, and its packed file, read by bitbyte; the output of
# bench/compare_inference.sh without other programs.
set -u
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/program_helpers.sh
. "$source_dir/tests/program_helpers.sh"
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1

# Reads a file from its first byte to its last, element by element, and prints what it holds.
cat >read_gguf.py <<'PYTHON'
import hashlib, json, struct, sys

data = open(sys.argv[1], "rb").read()
at = 0
FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def take(form):
    global at
    (value,) = struct.unpack_from(form, data, at)
    at += struct.calcsize(form)
    return value


def string():
    global at
    size = take("<Q")
    at += size
    return data[at - size : at].decode()


def value(kind):
    if kind == 8:
        return string()
    if kind == 9:
        item = take("<I")
        return [value(item) for _ in range(take("<Q"))]
    return take(FORMS[kind])


def ternary(kind, raw, columns, rows):
    """Every weight and the scales."""
    weights, scales = [], set()
    if kind == 35:
        assert len(raw) == rows * columns // 256 * 66
        for b in range(0, len(raw), 66):
            scales.add(struct.unpack_from("<e", raw, b + 64)[0])
            weights += [raw[b + e // 128 * 32 + e % 32] >> e % 128 // 32 * 2 & 3 for e in range(256)]
    elif kind == 36:
        assert len(raw) == rows * columns // 4 + 32
        scales.add(struct.unpack_from("<f", raw, len(raw) - 32)[0])
        weights = [raw[e // 128 * 32 + e % 32] >> 6 - e % 128 // 32 * 2 & 3 for e in range(rows * columns)]
    else:
        assert kind == 135 and len(raw) == rows * (4 + columns // 4)
        for r in range(0, len(raw), 4 + columns // 4):
            scales.add(struct.unpack_from("<f", raw, r)[0])
            weights += [raw[r + 4 + e // 64 * 16 + e % 16] >> e % 64 // 16 * 2 & 3 for e in range(columns)]
    assert all(weights.count(v) > len(weights) // 4 for v in (0, 1, 2)) and 3 not in weights and len(scales) == 1
    return {"weights": hashlib.sha256(bytes(weights)).hexdigest(), "scale": scales.pop()}


assert data[:4] == b"GGUF" and len(sys.argv) == 2
at = 4
version, tensors, keys = take("<I"), take("<Q"), take("<Q")
found = {"version": version, "keys": {}, "tensors": {}}
for _ in range(keys):
    name = string()
    found["keys"][name] = value(take("<I"))
infos = []
for _ in range(tensors):
    name = string()
    dims = [take("<Q") for _ in range(take("<I"))]
    infos.append((name, dims, take("<I"), take("<Q")))
start = -(-at // 32) * 32
assert [i[3] % 32 for i in infos] == [0] * tensors and infos[0][3] == 0
for i, (name, dims, kind, offset) in enumerate(infos):
    elements = dims[0] * (dims[1] if len(dims) > 1 else 1)
    size = {0: 4 * elements, 1: 2 * elements, 35: elements // 256 * 66, 36: elements // 4 + 32}.get(kind)
    size = elements // 4 + 4 * dims[1] if kind == 135 else size
    end = infos[i + 1][3] if i + 1 < tensors else len(data) - start
    assert size <= end - offset < size + 32 and not any(data[start + offset + size : start + end]), name
    raw = data[start + offset : start + offset + size]
    if kind in (0, 1):
        what = {"values": hashlib.sha256(raw).hexdigest()}
    else:
        what = ternary(kind, raw, *dims)
    found["tensors"][name] = {"dims": dims, **what}
    found["kind"] = kind if len(dims) == 2 and kind > 1 else found.get("kind")
print(json.dumps(found))
PYTHON

write() { python3 "$source_dir/bench/random_model.py" --n_layer 2 --d_model 256 --n_head 4 --d_ff 512 "$@"; }
for format in tq2_0 i2_s iq2_bn; do
    expect 0 write --format "$format" --out "$format.gguf" --context 64
    expect 0 python3 read_gguf.py "$format.gguf"
    mv out "$format.json"
done
cat >compare.py <<'PYTHON'
import json

files = {f: json.load(open(f"{f}.json")) for f in ("tq2_0", "i2_s", "iq2_bn")}
assert {f: (v["kind"], v["keys"].pop("general.file_type")) for f, v in files.items()} == {
    "tq2_0": (35, 37), "i2_s": (36, 40), "iq2_bn": (135, 137)
}
one = files["tq2_0"]
for other in files.values():
    assert (other["version"], other["keys"], other["tensors"]) == (3, one["keys"], one["tensors"])
keys = one["keys"]
numbers = {"embedding_length": 256, "block_count": 2, "feed_forward_length": 512, "attention.head_count": 4, "context_length": 64}
assert {k: keys[f"llama.{k}"] for k in numbers} == numbers and keys["llama.rope.dimension_count"] == 64
tokens = keys["tokenizer.ggml.tokens"]
assert len(set(tokens)) == 256 and tokens[ord("A")] == "A" and tokens[ord(" ")] == "\u0120" and tokens[10] == "\u010a"
assert keys["tokenizer.ggml.merges"] == []
names = {"token_embd.weight", "output_norm.weight"}
for n in range(2):
    parts = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down"
    names |= {f"blk.{n}.{part}.weight" for part in parts.split()}
assert set(one["tensors"]) == names
assert one["tensors"]["blk.1.ffn_down.weight"]["dims"] == [512, 256]
assert one["tensors"]["blk.1.ffn_up.weight"]["dims"] == [256, 512]
weights = [t["weights"] for t in one["tensors"].values() if "weights" in t]
assert len(set(weights)) == len(weights) == 14
PYTHON
expect 0 python3 compare.py
# bitbyte's own has the same weights: it says what they are, and computes with them.
expect 0 write --format bitbyte --out packed --context 64
expect 0 "$bitbyte" info packed --json
cp out info.json
[ "$(json_value info.json kind)" = "packed model" ] || fail "random_model: the packed file is not seen as one"
json_value info.json config | grep -q '"d_ff":512' || fail "random_model: the packed file's configuration"
[ "$(json_value info.json parameters)" = $((256 * 256 + 5 * 256 + 2 * (4 * 256 * 256 + 3 * 256 * 512))) ] ||
    fail "random_model: the packed file's parameters"
expect 0 "$bitbyte" generate packed --threads 1 --device "$device" --temperature 0 --max_new_bytes 4 --prompt abc
[ "$(wc -c <out)" = 4 ] || fail "random_model: bitbyte writes nothing with its packed file"
expect 0 write --format iq2_bn --out again.gguf --context 64
cmp -s again.gguf iq2_bn.gguf || fail "random_model: two files of one seed differ"
expect 0 write --format iq2_bn --out other.gguf --context 64 --seed 2
cmp -s other.gguf iq2_bn.gguf && fail "random_model: two seeds give one file"
expect 2 write --format tq2_0 --d_ff 320 --out refused.gguf
complains "--d_ff: tq2_0 needs a multiple of 256, found 320"
expect 2 write --format i2_s --n_head 3 --out refused.gguf
complains "--n_head: 256 in 3 heads"
expect 1 write --format i2_s --out missing/refused.gguf
complains "missing/refused.gguf.partial: No such file"
[ -e refused.gguf ] && fail "random_model: a refused file is there"

expect 0 "$source_dir/bench/compare_inference.sh" --help
says "IK_LLAMA_CPP_DIR"
says "--positions"
compare=(python3 "$source_dir/bench/compare_inference.py" --models models --bitbyte "$bitbyte")
expect 2 "${compare[@]}" --peer "llama=bench"
complains "expected NAME=PROGRAM"
expect 2 "${compare[@]}" --positions 0,many
complains "expected numbers from 0"
expect 1 "${compare[@]}" --quick --ours_only --bitbyte missing
complains "missing: No such file"
mkdir -p models
write --format bitbyte --out models/M-bitbyte
expect 0 "${compare[@]}" --quick --ours_only --threads 1 --json turns.json
says "Shape M, threads: 1"
says "decode at 64"
grep -Eq '^bitbyte( +[0-9.]+ \([0-9]+%\)){3} +[0-9.]+ +[1-9][0-9,]*$' out || fail "compare_inference: no row of bitbyte"
perl -MJSON::PP -e 'local $/; my $turns = decode_json(<STDIN>)->[0]{turns}{bitbyte};
    exit !($turns->{$_}[0]{value} > 0) for "decode_0", "decode_64", "prefill", "start"' <turns.json || fail "compare_inference --json"

guessing=(python3 "$source_dir/bench/compare_guessing.py" --bitbyte "$bitbyte" --rounds 1 --tokens 40 --lengths 60 --threads 1)
write --format bitbyte --out small
expect 0 "${guessing[@]}" small "$source_dir/README.md"
says "lines of a log"
[ "$(grep -cE '[0-9]\.[0-9]{2} \(' out)" = 5 ] || fail "compare_guessing: not a line for each text"
printf 'short' >short
expect 1 "${guessing[@]}" small short
complains "short: 5 bytes, at least 120 are needed"
echo "passed"
