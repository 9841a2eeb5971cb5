"""What a loaded model's tokenizer makes of conversations and of answers: prompts before a batch, signs after it.

Every slice is asked several times and every answer is looked at, beside the seconds that are measured: so what was
rendered is kept, and a token is looked at once. Runs beside `evaluation.worker` in the engine's own environment, so it
imports nothing of this project.
"""

import json
from typing import Any

KEPT = 4096  # rendered conversations: a search's items, a few times over
LAST = 8  # tokens of a prompt that tell whether it opened a thinking block


class Unreadable(Exception):
    """No conversation can be put to this model: the message says why."""


class Reader:
    """Of one loaded model."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.last_token = max(tokenizer.get_vocab().values())  # the highest id that it knows
        self._prompts: dict[str, list[int]] = {}
        self._opened: dict[tuple[int, ...], str] = {}
        self._partial: dict[int, bool] = {}  # token to whether it is no UTF-8 by itself

    def prompts(self, conversations: list[list[dict[str, str]]], thinking: bool) -> list[list[int]]:
        """Token ids of each conversation, by the model's own chat template. Raises `Unreadable`."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise Unreadable(
                "the model's tokenizer has no chat template, so no conversation can be put to it: its folder needs "
                "chat_template.jinja, or chat_template in tokenizer_config.json"
            )
        names = [json.dumps([thinking, messages]) for messages in conversations]
        new = {name: chat for name, chat in zip(names, conversations, strict=True) if name not in self._prompts}
        if len(self._prompts) + len(new) > KEPT:
            self._prompts.clear()
            new = dict(zip(names, conversations, strict=True))
        texts = [self._rendered(chat, thinking) for chat in new.values()]
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        self._prompts.update(zip(new, encoded, strict=True))
        return [self._prompts[name] for name in names]

    def _rendered(self, messages: list[dict[str, str]], thinking: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
                )
            )
        except Exception as fault:  # a template is a program: it may raise anything
            raise Unreadable(f"the model's chat template fails: {type(fault).__name__}: {fault}") from fault

    def opened(self, prompt: list[int]) -> str:
        """`<think>` where the prompt itself opened the thinking block that the answer goes on with, else nothing.

        A reader would else take thoughts that never ended for the answer.
        """
        end = tuple(prompt[-LAST:])
        if end not in self._opened:
            if len(self._opened) >= KEPT:
                self._opened.clear()
            self._opened[end] = "<think>" if self.tokenizer.decode(list(end)).rstrip().endswith("<think>") else ""
        return self._opened[end]

    def signs(self, ids: list[int]) -> dict[str, int]:
        """Of one answer how many tokens nobody knows, and how much of all its tokens is no UTF-8.

        vLLM leaves such bytes out of an answer's text.
        """
        known = [token for token in ids if token <= self.last_token]
        whole = not any(self._is_partial(token) for token in set(known))  # whole characters stay whole together
        bad_bytes = 0 if whole else self.tokenizer.decode(known).count("\ufffd")
        return {"unknown": len(ids) - len(known), "bad_bytes": bad_bytes}

    def _is_partial(self, token: int) -> bool:
        if token not in self._partial:
            self._partial[token] = "\ufffd" in self.tokenizer.decode([token])
        return self._partial[token]
