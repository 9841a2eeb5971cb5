"""Log-probabilities as transformers computes them: imported, ours; run by another environment's Python, that one's.

    echo '{"tokens": [...], "ids": {folder: [[...], ...]}}' | python logits_elsewhere.py

Prints one JSON line: the version, and for each folder the log-probability of each of `ids` at each position.
Imports nothing of this project.
"""

import json
import sys


def answer(asked):
    """The line to be printed, for what was asked."""
    import torch
    import transformers

    torch.set_num_threads(1)
    rows_of = {}
    for folder, ids in asked["ids"].items():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        with torch.no_grad():
            rows = model(input_ids=torch.tensor([asked["tokens"]])).logits[0].float().log_softmax(-1)
        rows_of[folder] = [[float(row[one]) for one in some] for row, some in zip(rows, ids, strict=False)]
    return {"version": transformers.__version__, "rows": rows_of}


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
