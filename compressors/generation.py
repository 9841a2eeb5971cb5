"""How a model ends and samples by default: generation_config.json alone. Touches no weights, follows quantization."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from compressors.context import copy_without
from compressors.files import has_tokenizer
from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext
from compressors.tokens import kept_tokens

SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")


class Generation(Step):
    """Add tokens that end an answer, and set sampling defaults where a field asks for them.

    Engines read both from the model's folder: `stop` joins the end-of-text ids that are there, and a sampling field
    is what a request gets that names none. Without a sampling field nothing changes what a model says until it stops.
    Raises `Infeasible` when the tokenizer makes more or less than one token of a stop string (text as the model says
    it, special tokens by their names), or an id is none of the model's.
    """

    step: Literal["generation"] = "generation"
    stop: tuple[NonNegativeInt | str, ...] = Field(
        (), description="tokens that end an answer too: their text, or ids counted before any trim of the vocabulary"
    )
    temperature: NonNegativeFloat | None = Field(None, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="share of probability that is drawn from")
    top_k: PositiveInt | None = Field(None, description="likeliest tokens that are drawn from")
    repetition_penalty: PositiveFloat | None = Field(None, description="above 1 makes repetition rarer")

    changes_weights: ClassVar[bool] = False
    code: ClassVar[tuple[str, ...]] = ("compressors.context", "compressors.tokens")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.stop and all(getattr(self, name) is None for name in SAMPLING):
            raise ValueError(f"nothing to change: give stop or one of {', '.join(SAMPLING)}")
        return self

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        beyond = [token for token in self.stop if isinstance(token, int) and token >= shape.vocab]
        if beyond and not shape.trimmed:
            raise Infeasible(f"generation stop {beyond[0]} is no token of this model, which has {shape.vocab}")

    def preflight(self, base: Path) -> None:
        encoded(base, [token for token in self.stop if isinstance(token, str)])

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        path = source / "generation_config.json"
        if path.is_file():
            settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        else:
            names = ("bos_token_id", "eos_token_id", "pad_token_id")
            settings = {name: config[name] for name in names if config.get(name) is not None}
        stops = self._ids(source, config["vocab_size"])
        if stops:
            ends = settings.get("eos_token_id", config.get("eos_token_id"))
            there = ends if isinstance(ends, list) else [] if ends is None else [ends]
            settings["eos_token_id"] = list(dict.fromkeys([*there, *stops]))
        for name in SAMPLING:
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        if self.temperature is not None:
            settings["do_sample"] = self.temperature > 0
        copy_without("generation_config.json", source, target)
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (target / "generation_config.json").write_text(text + "\n", encoding="utf-8")

    def _ids(self, folder: Path, rows: int) -> list[int]:
        """The model's own ids of `stop`."""
        if not self.stop:
            return []
        kept = kept_tokens(folder) or range(rows)
        own = {original: number for number, original in enumerate(kept)}
        strings = [token for token in self.stop if isinstance(token, str)]
        named = dict(zip(strings, encoded(folder, strings), strict=True))
        found = []
        for token in self.stop:
            number = named[token] if isinstance(token, str) else own.get(token)
            if number is None and isinstance(token, int) and kept_tokens(folder) is not None:
                raise Infeasible(f"generation stop {token} left the model when its vocabulary was trimmed")
            if number is None or number >= rows:
                raise Infeasible(f"generation stop {token!r} is no token of this model")
            found.append(number)
        return found


def encoded(folder: Path, strings: Sequence[str]) -> list[int]:
    """The id of each of `strings`, as the tokenizer in `folder` reads text: byte-level tokens are stored otherwise.

    Raises `Infeasible` for a string that is not exactly one token, and when there is no tokenizer.
    """
    if not strings:
        return []
    from transformers import AutoTokenizer

    if not has_tokenizer(path.name for path in folder.iterdir()):
        raise Infeasible(f"generation stop {strings[0]!r} needs a tokenizer, and the model has none: give an id")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    found = []
    for text in strings:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1 or (ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token):
            parts = f"cuts it into {len(ids)}" if len(ids) != 1 else "does not know it"
            raise Infeasible(f"generation stop {text!r} is no token of this model: its tokenizer {parts}")
        found.append(ids[0])
    return found
