"""Plotly figures of the replay pages, drawn by figures.js: recorded traffic by the hour, and two settings compared.

Rule: plain JSON made by plotly's own classes; the page's colours are filled in by the browser.
Must not know: how a replay works.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

CURRENT, CHANGED = "#7a8794", "#0072b2"  # of the dashboard's palette: grey is what is, blue what would be


def _figure(title: str, **layout: Any) -> go.Figure:
    return go.Figure(
        layout={
            "title": {"text": title, "font": {"size": 14}, "x": 0.01, "xanchor": "left"},
            "margin": {"l": 50, "r": 14, "t": 38, "b": 40},
            "height": 270,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {"orientation": "h", "y": 1.14, "x": 1, "xanchor": "right", "font": {"size": 11}},
            **layout,
        }
    )


def recorded(hours: Sequence[tuple[datetime, int]]) -> dict[str, Any]:
    """Requests an hour."""
    figure = _figure("Recorded requests by the hour", height=180)
    figure.add_bar(x=[hour for hour, _ in hours], y=[n for _, n in hours], marker={"color": CHANGED}, width=3_600_000)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(type="date")
    return figure.to_plotly_json()


def of_result(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The pictures of one replay, by their place on the page."""
    return {"curve": curve(result["curves"]), "pieces": pieces(result)}


def curve(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Share of all requests answered within a time; further left is better."""
    figure = _figure("Answered within")
    for name, colour, dash in (("current", CURRENT, "dot"), ("changed", CHANGED, "solid")):
        points = curves[name]
        figure.add_scatter(
            x=points["s"], y=points["share"], name=name, mode="lines", line={"color": colour, "dash": dash}
        )
    figure.update_xaxes(type="log", title="seconds")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="share of all requests")
    return figure.to_plotly_json()


def pieces(result: Mapping[str, Any]) -> dict[str, Any]:
    """The change's effect in every piece, and the interval around its mean: below 1 is better."""
    pairs = [(piece["current"]["lateness"], piece["changed"]["lateness"]) for piece in result["pieces"]]
    ratios = [new / old if old else None if new else 1.0 for old, new in pairs]  # nothing to compare with: a gap
    names = [f"{number + 1}" for number in range(len(ratios))]
    figure = _figure("Response / target, changed ÷ current, by piece")
    figure.add_bar(x=names, y=ratios, name="piece", marker={"color": CHANGED})
    effect = result["effect"]
    if effect["ratio"] is not None and effect["high"] is not None:
        error = {"array": [effect["high"] - effect["ratio"]], "arrayminus": [effect["ratio"] - effect["low"]]}
        figure.add_scatter(
            x=["all"],
            y=[effect["ratio"]],
            name="all, 95 %",
            mode="markers",
            marker={"color": CURRENT, "size": 9},
            error_y={"type": "data", "symmetric": False, **error},
        )
    figure.add_hline(y=1.0, line={"color": CURRENT, "dash": "dot", "width": 1})
    figure.update_xaxes(type="category", title="piece of the recording")
    figure.update_yaxes(rangemode="tozero", title="times")
    return figure.to_plotly_json()
