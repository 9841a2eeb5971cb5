"""docs/steps.md, written from the code: `python -m search.steps_page > docs/steps.md`, or `make docs`.

Every step with its fields, what may follow what, and which engine serves which scheme. Knows nothing of runs.
"""

from __future__ import annotations

import inspect
from typing import Any

from pydantic_core import PydanticUndefined

from compressors.shape import check_recipe
from compressors.step import EngineTraits, Infeasible, ModelShape, Step
from compressors.steps import STEPS, parse_step
from evaluation.serves import FEATURES, TABLE

EXAONE = ModelShape(
    architecture="Exaone4ForCausalLM", layers=30, hidden=2048, ffn=4096, heads=32, kv_heads=8, head_dim=64,
    vocab=102400, tied=True, max_positions=65536,
)  # fmt: skip
EVERYTHING = EngineTraits(
    name="an engine that serves everything",
    device="cuda",
    schemes=frozenset().union(*(row.schemes for row in TABLE.values())),
    features=FEATURES,
)
# The smallest form of each step, for the table of what may follow what.
EXAMPLES: dict[str, dict[str, Any]] = {
    "drop_layers": {"count": 2},
    "prune_ffn": {"width": 3072},
    "prune_heads": {"kv_heads": 6},
    "prune_hidden": {"hidden": 1792},
    "trim_vocab": {"mode": "exact"},
    "distill": {"tokens": 100_000},
    "finetune": {"tokens": 100_000},
    "sparsify": {"method": "magnitude", "sparsity": 0.1},
    "quantize": {"scheme": "W8A8"},
    "nf4": {},
    "context": {"max_position_embeddings": 16384},
    "generation": {"stop": [361]},
}
NEW_STEP = '''"""Weight noise: every linear weight moves a little. Knows nothing of data or engines."""

from typing import Literal

from pydantic import Field, PositiveFloat

from compressors.step import Step


class Noise(Step):
    """Add normal noise of `scale` times each matrix's own standard deviation."""

    step: Literal["noise"] = "noise"
    scale: PositiveFloat = Field(0.01, description="standard deviation of the noise, relative")

    def apply(self, model, tokenizer, context):
        import torch  # here, so that spaces and refusals need not wait for it

        torch.manual_seed(context.seed)
        for linear in (one for one in model.model.layers.modules() if isinstance(one, torch.nn.Linear)):
            linear.weight.data += self.scale * linear.weight.std() * torch.randn_like(linear.weight)
        return model
'''


def page() -> str:
    """The whole of docs/steps.md."""
    parts = [
        "# Steps\n\nWritten by `make docs` from the code; a test sees that it is current.",
        "## What there is\n\n" + "\n\n".join(_step(step) for step in STEPS),
        "## What may follow what\n\nRows come first, columns after, in a recipe for EXAONE-4.0-1.2B's shape and an "
        "engine that serves everything, each with the fields of an example; before a row of `distill` a layer was "
        "dropped. A number is the reason why not. Quantized weights may still be followed by `finetune` or `distill` "
        "with `trains: norms`.\n\n" + _order(),
        "## Which engine serves what\n\n**seen**: served by us; read: in the engine's source, not run by us; a number "
        "is what is missing. Recipes that need it end as infeasible, naming it.\n\n" + _engines(),
        "## A step of your own\n\nOne file, `compressors/noise.py`:\n\n"
        f"```python\n{NEW_STEP}```\n\nand in `compressors/steps.py` its import and its name in the list: `from "
        "compressors.noise import Noise`, `_Any = ... | Noise`. `check` refuses what makes no sense, `reshape` says "
        "what the next step will see; neither is needed here. Store, command line and spaces know the step from then "
        "on; an entry in `EXAMPLES` of `search/steps_page.py` adds it to the table of what may follow what.",
    ]
    return "\n\n".join(parts) + "\n"


def _step(step: type[Step]) -> str:
    name = step.model_fields["step"].default
    rows = [
        f"| `{field}` | {_kind(info.annotation)} | {_default(info)} | {info.description or ''} |"
        for field, info in step.model_fields.items()
        if field != "step"
    ]
    traits = ["reads conversations"] * step.uses_data + ["goes on from an earlier rung"] * (step.continues is not None)
    traits += ["edits files alone"] * (not step.changes_weights)
    text = inspect.getdoc(step) or ""
    told = f"### {name}\n\n{text}" + (f"\n\n*{'; '.join(traits)}*" if traits else "")
    return told + "\n\n| field | type | default | |\n| --- | --- | --- | --- |\n" + "\n".join(rows) if rows else told


def _kind(annotation: Any) -> str:
    text = inspect.formatannotation(annotation).replace("typing.", "").replace("|", "\\|")
    return f"`{text}`" if "\\|" not in text else text


def _default(info: Any) -> str:
    return "required" if info.default is PydanticUndefined else f"`{info.default!r}`"


def _order() -> str:
    known = [str(step.model_fields["step"].default) for step in STEPS]
    names = [name for name in known if name in EXAMPLES]
    reasons: dict[str, int] = {}
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for first in names:
        cells = []
        for then in names:
            before = [{"step": "drop_layers", **EXAMPLES["drop_layers"]}] if first == "distill" else []
            why = _refusal([*before, {"step": first, **EXAMPLES[first]}, {"step": then, **EXAMPLES[then]}])
            cells.append("yes" if why is None else f"{reasons.setdefault(why, len(reasons) + 1)}")
        lines.append(f"| **{first}** | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + "\n".join(f"{number}. {why}" for why, number in reasons.items())


def _refusal(recipe: list[dict[str, Any]]) -> str | None:
    try:
        check_recipe([parse_step(step) for step in recipe], EXAONE, EVERYTHING)
    except Infeasible as refusal:
        return str(refusal)
    return None


def _engines() -> str:
    names = sorted(frozenset().union(*(row.seen | row.read | row.lacking.keys() for row in TABLE.values())))
    reasons: dict[str, int] = {}
    heads = [f"vLLM {version} on {device}" for version, device in TABLE]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name in names:
        cells = []
        for row in TABLE.values():
            if name in row.seen | row.read:
                cells.append("**seen**" if name in row.seen else "read")
            else:
                why = row.lacking.get(name, "not seen to work")
                cells.append(f"{reasons.setdefault(why, len(reasons) + 1)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + "\n".join(f"{number}. {why}" for why, number in reasons.items())


if __name__ == "__main__":
    print(page(), end="")
