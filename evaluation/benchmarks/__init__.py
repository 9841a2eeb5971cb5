"""The benchmarks, one file each. Knows nothing of engines, models or scores."""

from __future__ import annotations

from evaluation.benchmarks.base import BadData, Benchmark, Decoding, Item, read_rows
from evaluation.benchmarks.kmmlu_pro import KmmluPro
from evaluation.benchmarks.kmmlu_redux import KmmluRedux
from evaluation.benchmarks.ko_longrag import KoLongRag
from evaluation.benchmarks.komt_bench import KoMtBench
from evaluation.benchmarks.likelihood import KmmluProLikelihood, KmmluReduxLikelihood

__all__ = ["BENCHMARKS", "BadData", "Benchmark", "Decoding", "Item", "benchmark", "read_rows"]

BENCHMARKS: tuple[Benchmark, ...] = (
    KmmluPro(),
    KmmluRedux(),
    KoLongRag(),
    KoMtBench(),
    KmmluProLikelihood(),
    KmmluReduxLikelihood(),
)


def benchmark(name: str) -> Benchmark:
    """The benchmark called `name`; raises `BadData` naming those there are."""
    for known in BENCHMARKS:
        if known.name == name:
            return known
    raise BadData(f"no benchmark {name!r}; there are {', '.join(known.name for known in BENCHMARKS)}")
