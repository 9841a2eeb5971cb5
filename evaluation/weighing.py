"""How likely is each of several answers? Runs beside `evaluation.worker`, so it imports nothing of this project."""

from typing import Any


class TooLong(Exception):
    """A prompt and its option do not fit the model's context."""


def weigh(llm: Any, prompts: list[list[int]], options: list[list[str]]) -> list[list[float]]:
    """Of each prompt (token ids) the log-probabilities of its `options` as what follows: nats, summed over tokens."""
    from vllm import SamplingParams

    tokenizer, limit = llm.get_tokenizer(), llm.llm_engine.model_config.max_model_len
    asked: list[tuple[int, list[int]]] = []  # where the option begins, and the whole
    for prompt, several in zip(prompts, options, strict=True):
        for option in several:
            whole = prompt + tokenizer.encode(option, add_special_tokens=False)
            if len(whole) + 1 > limit:
                raise TooLong(f"a prompt of {len(whole)} tokens does not fit max_model_len {limit}")
            asked.append((len(prompt), whole))
    params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1)
    outputs = llm.generate([{"prompt_token_ids": whole} for _, whole in asked], params, use_tqdm=False)
    sums = iter(
        sum(output.prompt_logprobs[place][whole[place]].logprob for place in range(begin, len(whole)))
        for (begin, whole), output in zip(asked, outputs, strict=True)
    )
    return [[next(sums) for _ in several] for several in options]
