"""vLLM alone, without squeeze: started by `overhead.py` in the engine's environment, with a file of what to ask.

The file holds `model`, `settings` (of vllm.LLM), and `batches`: conversations, and the sampling of each. Prompts are
rendered before any clock runs. Every line on stdin is answered by the seconds of one pass over all batches.
"""

import json
import os
import sys
import time
from pathlib import Path

replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

from vllm import LLM, SamplingParams  # noqa: E402 - after stdout is out of its way

llm = LLM(model=asked["model"], **asked["settings"])
tokenizer = llm.get_tokenizer()
batches = []
for batch in asked["batches"]:
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        for chat in batch["conversations"]
    ]
    prompts = [{"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts]
    batches.append((prompts, [SamplingParams(**one) for one in batch["sampling"]]))
for _ in sys.stdin:
    begin = time.perf_counter()
    tokens = 0
    for prompts, params in batches:
        outputs = llm.generate(prompts, params, use_tqdm=False)
        tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
    replies.write(json.dumps({"seconds": time.perf_counter() - begin, "tokens": tokens}) + "\n")
