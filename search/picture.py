"""The picture of a search: PerfNorm against SpeedNorm, lines of equal score, one point a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.ledger import TrialRecord
from search.recipe import Recipe

COLORS = {"finished": "#1a7f5a", "stopped": "#c9a227", "failed": "#b03030", "running": "#3070b0"}


def picture(trials: Sequence[TrialRecord], last_rung: int) -> str:
    """HTML of the figure with plotly inside it: it needs no network."""
    return str(
        figure(trials, last_rung).to_html(include_plotlyjs=True, full_html=False, config={"displayModeBar": False})
    )


def figure(trials: Sequence[TrialRecord], last_rung: int) -> Any:
    """The plotly figure; trials without a measured rung are not in it."""
    import plotly.graph_objects as go

    measured = [trial for trial in trials if trial.last is not None]
    plot = go.Figure()
    _add_score_lines(plot, measured)
    for status, color in COLORS.items():
        some = [trial for trial in measured if trial.status == status]
        if not some:
            continue
        lines = [trial.last or {} for trial in some]
        plot.add_trace(
            go.Scatter(
                x=[line["speed_norm"] for line in lines],
                y=[line["perf_norm"] for line in lines],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [line["speed_high"] - line["speed_norm"] for line in lines],
                    "arrayminus": [line["speed_norm"] - line["speed_low"] for line in lines],
                    "thickness": 1,
                    "width": 0,
                },
                mode="markers+text",
                name=f"{status} ({len(some)})",
                text=[trial.name for trial in some],
                textposition="top center",
                textfont={"size": 10},
                marker={"color": color, "size": [14 if last_rung in trial.rungs else 8 for trial in some]},
                hovertext=[
                    f"{trial.name}: {Recipe.of(trial.recipe)}<br>score {line['score']:.4f} "
                    f"[{line['score_low']:.4f}, {line['score_high']:.4f}]"
                    for trial, line in zip(some, lines, strict=True)
                ],
                hoverinfo="text",
            )
        )
    plot.add_trace(
        go.Scatter(x=[0], y=[1], mode="markers", name="base", marker={"symbol": "star", "size": 16, "color": "#222"})
    )
    plot.update_layout(
        template="plotly_white",
        height=560,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        xaxis_title="SpeedNorm (to the right: fewer seconds a token)",
        yaxis_title="PerfNorm (up: better answers)",
        legend={"orientation": "h", "y": 1.08},
    )
    return plot


def _add_score_lines(plot: Any, measured: Sequence[TrialRecord]) -> None:
    """Lines on which 0.5·PerfNorm + 0.5·SpeedNorm is the same."""
    import plotly.graph_objects as go

    lines = [trial.last or {} for trial in measured]
    low = min([0.0, *(line["speed_norm"] for line in lines)]) - 0.05
    high = max([0.0, *(line["speed_norm"] for line in lines)]) + 0.05
    for tenth in range(2, 9):
        level = tenth / 10
        plot.add_trace(
            go.Scatter(
                x=[low, high],
                y=[2 * level - low, 2 * level - high],
                mode="lines",
                line={"color": "#ddd", "width": 1, "dash": "dot"},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        plot.add_annotation(x=high, y=2 * level - high, text=f"{level:.1f}", showarrow=False, font={"color": "#999"})
    best = [line["perf_norm"] for line in lines]
    plot.update_yaxes(range=[min([1.0, *best]) - 0.08, max([1.0, *best]) + 0.08])
    plot.update_xaxes(range=[low, high + 0.02])
