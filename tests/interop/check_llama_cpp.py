# SPDX-License-Identifier: MIT
"""llama.cpp runs our GGUF: check_llama_cpp.py RUN UNQUANTIZED_RUN WORK, where the second was trained with --no_act_quant.

llama.cpp does not round the inputs of linear layers to int8 as the first was trained; with the second it computes the same."""
import pathlib
import sys

import llama_cpp
import numpy as np

from bitbyte import PROMPTS, TEXT, Library, convert, difference, finish, greedy, tell

quantized, plain, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])


def open_model(path, **options):
    """One thread, which waits for no other; a cache that rounds nothing."""
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, type_k=llama_cpp.GGML_TYPE_F32,
                           type_v=llama_cpp.GGML_TYPE_F32, seed=0, verbose=False, **options)


def logits(path):
    model = open_model(path, logits_all=True)
    model.eval(list(TEXT))
    return np.array(model.scores[:len(TEXT)])


def generate(model, prompt, count):
    model.reset()
    model.eval(model.tokenize(prompt.encode(), add_bos=False, special=False))
    out = bytearray()
    for _ in range(count):
        out.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval([out[-1]])
    return bytes(out)


def check_tokens(path):
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    strings = [b"", *(chr(c).encode() for c in range(1, 128)), "naïve — ŝanĝo 日本語 🎈\r\n  x".encode(), b"a\0b", bytes(range(128))]
    strings += [chr(c).encode() for c in (*range(0x80, 0x800, 7), *range(0x800, 0xD800, 97), *range(0x10000, 0x110000, 9973))]
    wrong = [s for s in strings if model.tokenize(s, add_bos=False, special=False) != list(s)]
    tell(not wrong, "llama.cpp: tokens of valid UTF-8 are its bytes", f"{len(strings)} strings, {len(wrong)} wrong{': ' + repr(wrong[:5]) if wrong else ''}")
    back = [b for b in range(256) if model.detokenize([b]) != bytes([b])]
    tell(not back, "llama.cpp: each token is its byte", f"256 tokens, {len(back)} wrong")
    whole = model.detokenize(list(range(256)))
    tell(whole == bytes(range(256)), "llama.cpp: all 256 tokens in a row are their bytes")
    invalid = [bytes([b]) for b in range(0x80, 256)] + [b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80"]
    kept = [s for s in invalid if model.tokenize(s, add_bos=False, special=False) == list(s)]
    tell(True, "llama.cpp: invalid UTF-8 in a prompt reaches the tokens as it is", f"{len(kept)} of {len(invalid)} strings (for information)")


ref = Library("ref")
ours = {prompt: greedy(plain, prompt, 64, "ref") for prompt in PROMPTS}  # cpu would round inputs to bf16
expected = {run: ref.logits(run, TEXT) for run in (quantized, plain)}
for kind in "f32", "f16", "q8_0", "tq1_0", "tq2_0", "q2_0":
    path = {run: convert(run, work / f"llama-{i}-{kind}.gguf", "--type", kind) for i, run in enumerate((quantized, plain))}
    if kind == "f32":
        check_tokens(path[quantized])
    of_plain, of_quantized = (difference(logits(path[run]), expected[run]) for run in (plain, quantized))
    bound = {"f32": 1e-5, "f16": 1e-3}.get(kind, 0.01)  # scales have 11 bits but for f32; other types round inputs by blocks
    tell(of_plain < bound, f"llama.cpp {kind}: logits, relative difference", f"{of_plain:.1e} without int8 inputs, {of_quantized:.1e} with them")
    model = open_model(path[plain], logits_all=True)
    same = [generate(model, prompt, 64) == ours[prompt] for prompt in PROMPTS]
    tell(all(same) or kind != "f32", f"llama.cpp {kind}: greedy, 64 bytes, model without int8 inputs", f"{sum(same)} of {len(PROMPTS)} prompts the same")
finish()
