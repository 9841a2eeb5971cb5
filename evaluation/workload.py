"""What is asked of a model when its speed is predicted: how many prompts, how long, how many at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Requests(BaseModel):
    """Prompts of one length, answered at one length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="for messages")
    prompts: PositiveInt = Field(description="how many")
    prompt_tokens: PositiveInt = Field(description="tokens of each prompt")
    output_tokens: PositiveInt = Field(description="tokens generated for each; the first comes out of the prompt's pass")
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

# The contest's four benchmarks. Counts are those of the published test sets, LongRAG's lengths are published averages
# of its two tasks, half of the items each; the other lengths are assumptions: a few hundred tokens for a multiple-choice
# prompt, answers of KoMT-Bench of 600 of at most 1,024 tokens, the second turn with the first before it. Concurrency is
# vLLM's max_num_seqs as pinned here (256), or what fits an L4's KV cache (about 260,000 tokens) where prompts are long.
CONTEST: Workload = (
    Requests(name="KMMLU-Pro", prompts=2822, prompt_tokens=400, output_tokens=8),
    Requests(name="KMMLU-Redux", prompts=2587, prompt_tokens=400, output_tokens=8),
    Requests(name="Ko-LongRAG, one document", prompts=300, prompt_tokens=2915, output_tokens=50, concurrency=88),
    Requests(name="Ko-LongRAG, several documents", prompts=300, prompt_tokens=14092, output_tokens=50, concurrency=18),
    Requests(name="KoMT-Bench, turn 1", prompts=80, prompt_tokens=180, output_tokens=600),
    Requests(name="KoMT-Bench, turn 2", prompts=80, prompt_tokens=880, output_tokens=600),
)
