"""A space to plan, and what a folder holds before and after."""

EVALUATION = """evaluation:
  limit: 4
  benchmarks: {kmmlu_redux: reference:items/kmmlu_redux.jsonl}
calibration: reference:text/calibration.jsonl
max_model_len: 1024
rungs: [{items: 0.5, tokens: 0.5}, {items: 1.0, tokens: 1.0}]
"""
STEPS = """steps:
  - step: drop_layers
    optional: true
    by: last
    count: [1, 2, 9]
  - step: context
    optional: true
    max_position_embeddings: [1024]
"""


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
