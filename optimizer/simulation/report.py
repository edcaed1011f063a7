"""A comparison as one HTML page with Plotly pictures; it needs no network and no server.

Rule: draws what `Comparison` holds, computes nothing of its own but quantiles. Must not know: policies.
"""

from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from optimizer.simulation import table
from optimizer.simulation.experiment import Comparison, Result
from optimizer.simulation.history import EMPTY, FULL, HELD, PARTIAL, SWAPPING, Ending

GPU_USE = {
    FULL: ("all slots busy", "#2f7d4f"),
    PARTIAL: ("some slots busy", "#8fc7a1"),
    SWAPPING: ("swapping, nothing runs", "#c8553d"),
    HELD: ("held back", "#e0a458"),
    EMPTY: ("nothing to do", "#d9d9d9"),
}
PALETTE = ("#2a6fbb", "#c8553d", "#7a7a7a", "#b58b2a", "#6b4c9a")
TIMELINE_S = 1800.0  # of the first seed, shown in the pictures of residency

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}}
pre{{overflow-x:auto;background:#f6f6f6;padding:1rem}} h2{{margin-top:2.5rem}}</style>
<script>{plotly}</script></head><body><h1>{title}</h1><p>{about}</p><pre>{table}</pre>{pictures}</body></html>
"""


def html(comparison: Comparison, about: str) -> str:
    """The whole page. `about` says in a sentence what was run."""
    pictures = [
        ("Latency of the answered requests", _latency(comparison)),
        ("Share answered within its target, by model", _within_target(comparison)),
        ("What the GPU did", _gpu(comparison)),
        *(
            (f"Models in memory: {name}, seed {runs[0].seed}, first half hour", _residency(runs[0]))
            for name, runs in comparison.results.items()
        ),
    ]
    return PAGE.format(
        title=f"Narrowgauge simulation: {escape(comparison.workload)}",
        plotly=get_plotlyjs(),
        about=escape(about),
        table=escape(table.text(comparison)),
        pictures="".join(
            f"<h2>{escape(title)}</h2>{figure.to_html(full_html=False, include_plotlyjs=False)}"
            for title, figure in pictures
        ),
    )


def _latency(comparison: Comparison) -> Any:
    """Share of all requests answered within a time: curves that end below 1 left somebody out."""
    figure = go.Figure()
    for color, (name, runs) in zip(PALETTE, comparison.results.items(), strict=False):
        outcomes = [outcome for result in runs for outcome in result.history.outcomes]
        latencies = sorted(o.latency_s for o in outcomes if o.ending is Ending.ANSWERED)
        step = max(1, len(latencies) // 500)
        points = [(latency, (rank + 1) / len(outcomes)) for rank, latency in enumerate(latencies)][::step]
        figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=name, line={"color": color})
    figure.update_xaxes(type="log", title="latency, s")
    figure.update_yaxes(title="share of all requests", tickformat=".0%", range=[0, 1])
    return _styled(figure)


def _within_target(comparison: Comparison) -> Any:
    figure = go.Figure()
    for color, (name, runs) in zip(PALETTE, comparison.results.items(), strict=False):
        outcomes = [outcome for result in runs for outcome in result.history.outcomes]
        models = sorted({outcome.model for outcome in outcomes})
        shares = []
        for model in models:
            asked = [outcome for outcome in outcomes if outcome.model == model]
            on_time = [o for o in asked if o.ending is Ending.ANSWERED and o.latency_s <= o.target_s]
            shares.append(len(on_time) / len(asked))
        figure.add_bar(x=models, y=shares, name=name, marker={"color": color})
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return _styled(figure)


def _gpu(comparison: Comparison) -> Any:
    figure = go.Figure()
    for use, (label, color) in GPU_USE.items():
        shares = [getattr(mean, f"{use}_share") for mean in comparison.means.values()]
        figure.add_bar(y=list(comparison.means), x=shares, name=label, orientation="h", marker={"color": color})
    figure.update_layout(barmode="stack")
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    return _styled(figure)


def _residency(result: Result) -> Any:
    figure = go.Figure()
    stays = [stay for stay in result.history.stays if stay.load_began < TIMELINE_S]
    for label, color in (("loading", "#e0a458"), ("loaded", "#2a6fbb"), ("leaving", "#c8553d")):
        spans = {
            "loading": [(s.load_began, s.loaded_at) for s in stays],
            "loaded": [(s.loaded_at, s.evict_began) for s in stays],
            "leaving": [(s.evict_began, s.gone_at) for s in stays],
        }[label]
        figure.add_bar(
            y=[stay.model for stay in stays],
            base=[start for start, _ in spans],
            x=[min(end, TIMELINE_S) - min(start, TIMELINE_S) for start, end in spans],
            name=label,
            orientation="h",
            marker={"color": color},
        )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="s", range=[0, min(TIMELINE_S, result.history.ended_at)])
    return _styled(figure)


def _styled(figure: Any) -> Any:
    return figure.update_layout(template="plotly_white", height=380, margin={"t": 20, "r": 20}, legend_orientation="h")
