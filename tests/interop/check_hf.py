# SPDX-License-Identifier: MIT
"""Hugging Face transformers opens our folder, and we open its: check_hf.py RUN WORK. Run by `make test-interop`."""
import pathlib
import random
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitbyte import PROMPTS, TEXT, Library, by_position, convert, difference, finish, greedy, tell

run, work = sys.argv[1], pathlib.Path(sys.argv[2])
library = Library("ref")


transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def int8(module, inputs):
    x = inputs[0]
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-8)
    return ((x / scale).round().clamp(-127, 127) * scale,)


def add_int8(model):
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(int8)


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([list(TEXT)])).logits[0].numpy()


def check_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["Once upon a time,\n", "  two  spaces \t\r\n", "naïve — ŝanĝo 日本語 🎈", "<s></s><|endoftext|>[UNK]", "\x00\x01\x7f", ""]
    random.seed(0)
    texts += ["".join(chr(random.randrange(1, 0xD800)) for _ in range(200)) for _ in range(20)]
    wrong = [text for text in texts if tokenizer(text)["input_ids"] != list(text.encode()) or
             tokenizer.decode(list(text.encode())) != text]
    tell(len(tokenizer) == 256 and not wrong, "transformers: tokens are the bytes, and back", f"{len(texts)} texts, {len(wrong)} wrong")


def check_chat_template():
    """What serve makes of messages, from the template in Jinja."""
    wrong = []
    for number, template in enumerate(["{role}: {content}\n", '<{role}>\n"{content}" é\t\\</{role}>\n\n', "{{% {role} %}} {content}{# #}"]):
        folder = convert(run, work / f"chat-{number}", "--to", "hf", "--chat_template", template.replace("\\", "\\\\"))
        messages = [{"role": role, "content": content} for role, content in [("system", " be {{ brief }}\n"), ("user", "é {role}"), ("assistant", "")]]
        text = "".join(template.replace("{role}", m["role"], template.index("{content}")).replace("{content}", "\0").replace("{role}", m["role"])
                       .replace("\0", m["content"]) for m in messages) + template[: template.index("{content}")].replace("{role}", "assistant")
        found = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if found != text:
            wrong.append((template, found, text))
    tell(not wrong, "transformers: a chat in our templates, in Jinja", f"{wrong}" if wrong else "the same text")


check_chat_template()
expected = library.logits(run, TEXT)
for kind in "f32", "bf16":
    folder = convert(run, work / f"hf-{kind}", "--to", "hf", "--type", kind)
    model = AutoModelForCausalLM.from_pretrained(folder).float()
    plain = difference(logits(model), expected)
    add_int8(model)
    hooked = difference(logits(model), expected)
    tell(hooked < (5e-3 if kind == "f32" else 5e-2), f"transformers: logits of hf {kind}, relative difference",
         f"{hooked:.1e} with int8 inputs, {plain:.1e} without")
    if kind == "f32":
        # In f64 only few inputs are rounded to another int8 step than here, see by_position.
        found = logits(model.double())
        tell(difference(found, expected) < 1e-3 and by_position(found, expected) < 1e-5, "transformers: logits of hf f32 in f64 with int8 inputs",
             f"{difference(found, expected):.1e} (median of positions {by_position(found, expected):.1e})")
        check_tokenizer(folder)
        tokenizer, same = AutoTokenizer.from_pretrained(folder), 0
        for prompt in PROMPTS:
            ids = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=64, do_sample=False)[0].tolist()
            same += bytes(ids[len(prompt.encode()):]) == greedy(run, prompt, 64, "ref")
        tell(same == len(PROMPTS), "transformers: greedy generate in f64 with int8 inputs, 64 bytes", f"{same} of {len(PROMPTS)} prompts the same")

# Codes at two bits for transformers' BitLinear, which quantizes its inputs itself. It scales them by 127/max and clamps max at 1e-5, so
# a tie may round the other way.
folder = convert(run, work / "hf-bitnet", "--to", "hf", "--type", "bitnet")
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
found = logits(model)
tell(difference(found, expected) < 1e-3 and by_position(found, expected) < 1e-5, "transformers: logits of hf bitnet in f64, relative difference",
     f"{difference(found, expected):.1e} (median of positions {by_position(found, expected):.1e})")

# What transformers writes: one file, and shards with an index.
packed = convert(run, work / "packed.safetensors", "--to", "packed").read_bytes()
model = AutoModelForCausalLM.from_pretrained(work / "hf-f32")
for name, options in ("one file", {}), ("shards", {"max_shard_size": "500KB"}):
    folder = work / f"saved {name}"
    model.save_pretrained(folder, **options)
    files = len(list(folder.glob("*.safetensors")))
    again = convert(folder, work / "again.safetensors", "--to", "packed").read_bytes()
    tell(again == packed and (files > 1) == bool(options), f"transformers: save_pretrained, {name}, is read to the same packed file",
         f"{files} .safetensors")
finish()
