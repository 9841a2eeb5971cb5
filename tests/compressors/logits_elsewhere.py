"""Run by another environment's Python: log-probabilities as that transformers computes them.

    echo '{"tokens": [...], "ids": {folder: [[...], ...]}}' | python logits_elsewhere.py

Prints one JSON line: the version, and for each folder the log-probability of each of `ids` at each position.
Imports nothing of this project.
"""

import json
import sys


def main() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    answer = {}
    for folder, ids in asked["ids"].items():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        with torch.no_grad():
            rows = model(input_ids=torch.tensor([asked["tokens"]])).logits[0].float().log_softmax(-1)
        answer[folder] = [[float(row[one]) for one in some] for row, some in zip(rows, ids, strict=False)]
    print(json.dumps({"version": transformers.__version__, "rows": answer}))


if __name__ == "__main__":
    main()
