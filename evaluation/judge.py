"""A judge of answers behind any OpenAI-compatible endpoint: GPT-4, Gemini's, a vLLM of one's own.

The key comes from the environment and goes nowhere but into the request. A verdict is kept by the content of what was
asked, so nothing is asked twice. Knows nothing of benchmarks.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluation.answers import AnswerStore
from evaluation.benchmarks.verdict import rating_of

if TYPE_CHECKING:
    import httpx
    import tenacity

NONSENSE = 3  # replies without a rating before the judge counts as unfit
SAID = 200  # characters of a reply that an error repeats
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # how an environment variable may be called
SECRET = re.compile(r"(?=.*[0-9])(?=.*[a-z]).{24,}|(?:sk|gsk|hf)_[A-Za-z0-9]{8,}|AIza.*")  # names that look like keys

Prompt = tuple[str, str]  # what the system and the user say


class JudgeFault(Exception):
    """No verdict is to be had: the message says why, and what to do."""


class _Busy(Exception):
    """Try again later; `after` seconds where the server named them."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class JudgeSpec(BaseModel):
    """Who judges, and how much that may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(description="the endpoint, up to /v1: https://api.openai.com/v1, http://127.0.0.1:8000/v1")
    model: str = Field(description="the judge's name there")
    key: str = Field("JUDGE_API_KEY", description="environment variable that holds the key; never the key itself")
    templates: str = Field(description="KoMT-Bench's judge_prompts_ko.jsonl")
    references: str | None = Field(None, description="KoMT-Bench's reference_gpt-4.jsonl, for rows without reference")
    calls: int = Field(2000, ge=1, description="requests at most, repeated ones included")
    parallel: int = Field(8, ge=1, description="requests under way at once")
    timeout: float = Field(120.0, gt=0, description="seconds until an answer counts as lost")
    attempts: int = Field(6, ge=1, description="tries of one request on 429, 5xx, silence and cut connections")
    wait: float = Field(1.0, gt=0, description="seconds before the second try; doubled for each after, to 60 at most")

    @model_validator(mode="after")
    def _names_a_variable(self) -> JudgeSpec:
        # of the whole, not of the field: complaints repeat what was given, and a key is told to nobody
        if not VARIABLE.fullmatch(self.key) or SECRET.fullmatch(self.key):
            raise ValueError(
                "key is the name of an environment variable, such as JUDGE_API_KEY, and no key itself: export the key "
                "under a name, and give that"
            )
        return self

    @property
    def missing_file(self) -> str | None:
        """What is named and not there, or None."""
        for field, path in (("templates", self.templates), ("references", self.references)):
            if path is not None and not Path(path).is_file():
                return f"evaluation.judge.{field}: no file at {path}"
        return None

    @property
    def missing_key(self) -> str | None:
        """Why nobody can be asked, or None."""
        return None if os.environ.get(self.key) else f"the judge's key {self.key} is not in the environment"


class Judge:
    """Asks for ratings from 1 to 10. Safe to use from several threads."""

    def __init__(self, spec: JudgeSpec, store: AnswerStore) -> None:
        self.spec, self.store = spec, store
        self.calls = 0  # requests sent in this life
        self._counting = threading.Lock()

    def rate(self, prompts: Sequence[Prompt]) -> list[float]:
        """A rating of each prompt, in order. Raises `JudgeFault`; what was judged by then is kept."""
        with ThreadPoolExecutor(self.spec.parallel) as pool:
            return list(pool.map(self._rating, prompts))

    def _rating(self, prompt: Prompt) -> float:
        identity = {"judge": self.spec.model, "url": self.spec.url, "system": prompt[0], "prompt": prompt[1]}
        known = self.store.get(identity)
        if known is not None:
            return float(known["rating"])
        reply = ""
        for _ in range(NONSENSE):
            reply = self._patiently(prompt)
            rating = rating_of(reply)
            if rating is not None:
                self.store.put(identity, {"rating": rating, "reply": reply})
                return rating
        raise JudgeFault(f"{self.spec.model} gave no rating from [[1]] to [[10]], {NONSENSE} times: {reply[:SAID]!r}")

    def _patiently(self, prompt: Prompt) -> str:
        import tenacity

        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.spec.attempts),
            wait=self._pause,
            retry=tenacity.retry_if_exception_type(_Busy),
            reraise=True,
        )
        try:
            return again(self._ask, prompt)
        except _Busy as fault:
            raise JudgeFault(f"{self.spec.url} gave no answer in {self.spec.attempts} tries: {fault}") from fault

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds to the next try: doubling, spread so that threads do not return together, or as the server said."""
        import random

        doubled = min(60.0, self.spec.wait * 2 ** (state.attempt_number - 1)) * (0.5 + random.random())
        fault = state.outcome.exception() if state.outcome is not None else None
        return max(doubled, min(60.0, fault.after)) if isinstance(fault, _Busy) else doubled

    def _ask(self, prompt: Prompt) -> str:
        import httpx

        key = os.environ.get(self.spec.key)
        if not key:
            raise JudgeFault(f"{self.spec.missing_key}: set it, or leave the benchmark out")
        with self._counting:
            if self.calls >= self.spec.calls:
                raise JudgeFault(
                    f"the judge's budget of {self.spec.calls} calls is spent: raise `calls`; what was judged by now is "
                    "kept where there is a store, which a run has and `evaluate` has not"
                )
            self.calls += 1
        messages = [{"role": "system", "content": prompt[0]}, {"role": "user", "content": prompt[1]}]
        try:
            reply = httpx.post(
                f"{self.spec.url.rstrip('/')}/chat/completions",
                json={"model": self.spec.model, "temperature": 0, "messages": messages},
                headers={"Authorization": f"Bearer {key}"},
                timeout=self.spec.timeout,
            )
        except httpx.TransportError as fault:
            raise _Busy(f"{type(fault).__name__} {fault}".strip()) from fault
        return self._content(reply)

    def _content(self, reply: httpx.Response) -> str:
        if reply.status_code == 429 or reply.status_code >= 500:
            after = reply.headers.get("Retry-After", "")
            raise _Busy(f"status {reply.status_code}", float(after) if after.isdigit() else 0.0)
        if reply.status_code != 200:
            check = {404: f"; {self._check_url}", 405: f"; {self._check_url}", 401: f"; see what {self.spec.key} holds"}
            remedy = check.get(reply.status_code, "")
            raise JudgeFault(f"{self.spec.url} refused with status {reply.status_code}: {reply.text[:SAID]!r}{remedy}")
        try:
            answer: Any = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as fault:
            raise _Busy(f"an answer that is no chat completion: {reply.text[:SAID]!r}; {self._check_url}") from fault
        return str(answer or "")

    @property
    def _check_url(self) -> str:
        asked = f"{self.spec.url.rstrip('/')}/chat/completions"
        return f"{asked} was asked for {self.spec.model}: check `url`, which goes up to /v1, and `model`"
