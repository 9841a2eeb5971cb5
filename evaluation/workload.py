"""What is asked of a model when its speed is predicted: how many prompts, how long, how many at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Requests(BaseModel):
    """Prompts of one length, answered at one length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="for messages")
    prompts: PositiveInt = Field(description="how many")
    prompt_tokens: PositiveInt = Field(description="tokens of each prompt")
    output_tokens: PositiveInt = Field(
        description="tokens generated for each; the first comes out of the prompt's pass"
    )
    concurrency: PositiveInt = Field(256, description="sequences decoded together at most")

    @property
    def generated(self) -> int:
        """Tokens generated."""
        return self.prompts * self.output_tokens

    @property
    def together(self) -> int:
        """Sequences in a decoding step."""
        return min(self.prompts, self.concurrency)


Workload = tuple[Requests, ...]

LONGEST_TOGETHER = 260_000  # tokens that fit an L4's KV cache in bf16 beside the model


def contest(concurrency: int = 256) -> Workload:
    """The contest's four benchmarks, at most `concurrency` sequences at once (vLLM's max_num_seqs as pinned here).

    Counts are those of the published test sets, LongRAG's lengths published averages of its two tasks, taken for half
    of the items each. Assumed are 400 tokens for a multiple-choice prompt, answers of 8 and 50 tokens, and for
    KoMT-Bench 600 of at most 1,024 tokens, the second turn with the first before it. How many sequences the server runs
    at once nobody has said.
    """
    parts = (  # name, prompts, prompt tokens, output tokens
        ("KMMLU-Pro", 2822, 400, 8),
        ("KMMLU-Redux", 2587, 400, 8),
        ("Ko-LongRAG, one document", 300, 2915, 50),
        ("Ko-LongRAG, several documents", 300, 14092, 50),
        ("KoMT-Bench, turn 1", 80, 180, 600),
        ("KoMT-Bench, turn 2", 80, 880, 600),
    )
    return tuple(
        Requests(
            name=name,
            prompts=prompts,
            prompt_tokens=before,
            output_tokens=after,
            concurrency=min(concurrency, LONGEST_TOGETHER // (before + after)),
        )
        for name, prompts, before, after in parts
    )


CONTEST = contest()
