# SPDX-License-Identifier: MIT
"""OpenAI's own client works with `bitbyte serve` unchanged, and Prometheus' parser reads its metrics: check_openai.py MODEL WORK. Run by
`make test-interop`."""
import asyncio
import json
import math
import subprocess
import sys
import urllib.request

import openai
from prometheus_client.parser import text_string_to_metric_families

from bitbyte import finish, program, run, tell

model = sys.argv[1]
server = subprocess.Popen([program, "serve", model, "--port", "0", "--quiet", "--api_key", "secret"], stdout=subprocess.PIPE, text=True)
address = server.stdout.readline().rsplit(": ", 1)[1].strip() + "/v1"
client = openai.OpenAI(base_url=address, api_key="secret", max_retries=0)
same = {"model": "any", "prompt": "The ", "max_tokens": 64, "seed": 3, "temperature": 0.8}
expected = json.loads(run("generate", model, "--prompt", "The ", "--max_new_bytes", 64, "--seed", 3, "--temperature", 0.8, "--json"))["samples"][0]["text"]

names = [m.id for m in client.models.list()]
tell(names == ["model.safetensors"] and client.models.retrieve(names[0]).owned_by == "bitbyte", "models")
whole = client.completions.create(**same, logprobs=3)
tell(whole.choices[0].text == expected and whole.usage.completion_tokens == 64 and len(whole.choices[0].logprobs.token_logprobs) == 64, "a completion is what generate writes")
parts = list(client.completions.create(**same, stream=True, stream_options={"include_usage": True}))
tell("".join(c.text for p in parts for c in p.choices) == expected and parts[-1].usage.total_tokens == 68, "the same as a stream", f"{len(parts)} parts")
messages = [{"role": "user", "content": "What is a tensor?"}]
chat = client.chat.completions.create(model="any", messages=messages, seed=1, max_completion_tokens=48, logprobs=True, top_logprobs=2)
text = client.completions.create(model="any", prompt="user: What is a tensor?\nassistant: ", seed=1, max_tokens=48).choices[0].text
tell(chat.choices[0].message.content == text and len(chat.choices[0].logprobs.content) == 48, "a chat")
parts = list(client.chat.completions.create(model="any", messages=messages, seed=1, max_tokens=48, stream=True))
tell("".join(p.choices[0].delta.content or "" for p in parts) == text and parts[0].choices[0].delta.role == "assistant", "a chat as a stream")
vectors = [e.embedding for e in client.embeddings.create(model="any", input=["one text", "another"]).data]
tell(len(vectors) == 2 and all(abs(math.fsum(x * x for x in v) - 1) < 1e-4 and len(v) == 256 for v in vectors), "embeddings, in the client's base64")


async def together():
    async with openai.AsyncOpenAI(base_url=address, api_key="secret") as many:
        answers = await asyncio.gather(*[many.completions.create(**{**same, "seed": i % 8}) for i in range(32)])
        stream = await many.completions.create(**same, stream=True)
        return [a.choices[0].text for a in answers], "".join([c.text async for p in stream for c in p.choices])

texts, streamed = asyncio.run(together())
tell(texts[:8] * 4 == texts and texts[3] == streamed == expected, "32 at once, asynchronously: the same request and seed, the same bytes")
errors = []
for make in (lambda: client.completions.create(model="any", prompt="a", suffix="b"), lambda: openai.OpenAI(base_url=address, api_key="x").models.list(),
             lambda: client.models.retrieve("other")):
    try:
        make()
    except openai.APIStatusError as error:
        errors.append(type(error).__name__)
tell(errors == ["BadRequestError", "AuthenticationError", "NotFoundError"], "errors are the client's own", ", ".join(errors))
metrics = urllib.request.Request(address.removesuffix("/v1") + "/metrics", headers={"Authorization": "Bearer secret"})
families = {f.name: f for f in text_string_to_metric_families(urllib.request.urlopen(metrics).read().decode())}
written = families["llamacpp:tokens_predicted"]
tell(written.type == "counter" and written.samples[0].value > 64 * 32 and families["llamacpp:requests_processing"].type == "gauge" and all(f.documentation and len(f.samples) == 1 for f in families.values()),
     "metrics, in Prometheus' own parser", f"{len(families)} of them")
server.terminate()
tell(server.wait(60) == 0, "SIGTERM ends it")
finish()
