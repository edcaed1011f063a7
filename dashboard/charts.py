"""Plotly figures, made here and drawn in the browser: traces without data, layout, and what each trace follows.

Rule: figures are plain JSON made by plotly's own classes, so that they are validated here; colours of the page's
theme are filled in by the browser. `meta` of a trace is the place in a sample of the field that it follows, and the
place in that field's list. Must not know: how data arrive.
"""

from typing import Any

import plotly.graph_objects as go

from controlplane.publisher import FIELDS, USES

# A model keeps its colour on every chart. Okabe-Ito: distinguishable with any colour vision.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
PLAIN = "#7a8794"


# Whole days need a date, the rest only the time: the page says which day it is.
_TIMES = [
    {"dtickrange": [None, 60_000], "value": "%H:%M:%S"},
    {"dtickrange": [60_000, 43_200_000], "value": "%H:%M"},
    {"dtickrange": [43_200_000, None], "value": "%a %d"},
]


def _figure(title: str, y: str, **more: Any) -> go.Figure:
    return go.Figure(
        layout={
            "title": {
                "text": f"<b>{title}</b>",
                "font": {"size": 13},
                "x": 0,
                "xanchor": "left",
                "y": 0.98,
                "yanchor": "top",
            },
            "margin": {"l": 44, "r": 10, "t": 30, "b": 54},
            "height": 220,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {
                "orientation": "h",
                "y": -0.16,
                "x": 0,
                "xanchor": "left",
                "yanchor": "top",
                "font": {"size": 11},
            },
            "xaxis": {"type": "date", "nticks": 6, "tickformatstops": _TIMES},
            "yaxis": {"title": {"text": y, "standoff": 4, "font": {"size": 11}}, "rangemode": "tozero", "nticks": 5},
            "hovermode": "x unified",
            "uirevision": "keep",
            **more,
        }
    )


def _follows(field: str, *place: int) -> list[int]:
    return [FIELDS.index(field), *place]


def all_of(models: list[str]) -> dict[str, Any]:
    """Every figure of the overview, by the name of its place on the page."""
    return {
        "timeline": timeline(models),
        "queue": queue_depth(models),
        "response": response_times(models),
        "speed": speed(),
        "cache": cache(),
        "gpu": gpu_time(),
        "swaps": swaps(),
    }


def colours(models: list[str]) -> dict[str, str]:
    """Model -> colour, by its place in the catalogue."""
    return {model: COLOURS[index % len(COLOURS)] for index, model in enumerate(models)}


def queue_depth(models: list[str]) -> dict[str, Any]:
    """Requests waiting per model, stacked."""
    shades = colours(models)
    figure = _figure("Queue depth", "waiting")
    for index, model in enumerate(models):
        figure.add_scatter(
            x=[],
            y=[],
            name=model,
            mode="lines",
            stackgroup="waiting",
            line={"color": shades[model], "shape": "hv"},
            meta=_follows("waiting", index),
        )
    return figure.to_plotly_json()


def response_times(models: list[str]) -> dict[str, Any]:
    """p50 (solid) and p95 (dotted) per model, seconds, of a sliding quarter of an hour or of a step of the range."""
    shades = colours(models)
    figure = _figure("Response time, p50 and p95 (dotted)", "s")
    for index, model in enumerate(models):
        for name, dash in (("p50", "solid"), ("p95", "dot")):
            figure.add_scatter(
                x=[],
                y=[],
                name=model if name == "p50" else f"{model} {name}",
                mode="lines",
                line={"color": shades[model], "dash": dash},
                connectgaps=True,
                showlegend=name == "p50",
                meta=_follows(name, index),
            )
    return figure.to_plotly_json()


def speed() -> dict[str, Any]:
    """Tokens per second over all slots, averaged over ten seconds, and the time to the first token."""
    figure = _figure(
        "Speed and time to first token",
        "tokens/s",
        yaxis2={
            "title": {"text": "s", "standoff": 4, "font": {"size": 11}},
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
            "nticks": 5,
            "tickmode": "auto",
        },
        margin={"l": 44, "r": 44, "t": 30, "b": 54},
    )
    figure.add_scatter(x=[], y=[], name="tokens/s", mode="lines", line={"color": COLOURS[2]}, meta=_follows("speed"))
    figure.add_scatter(
        x=[],
        y=[],
        name="first token, p50 (s)",
        mode="lines",
        yaxis="y2",
        connectgaps=True,
        line={"color": PLAIN, "dash": "dot"},
        meta=_follows("ttft"),
    )
    return figure.to_plotly_json()


def cache() -> dict[str, Any]:
    """Share of answers that came from the cache or from an identical running request."""
    figure = _figure("Answered without a run (cache, coalesced)", "", showlegend=False)
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    figure.add_scatter(
        x=[],
        y=[],
        name="share",
        mode="lines",
        line={"color": COLOURS[0]},
        connectgaps=False,
        meta=_follows("hits"),
    )
    return figure.to_plotly_json()


def gpu_time() -> dict[str, Any]:
    """Seconds of work a second, by what it went to; noted when a generation or a load ends."""
    figure = _figure("GPU time by use", "seconds a second")
    shades = {"prefill": COLOURS[4], "decode": COLOURS[0], "load": COLOURS[5]}
    for index, use in enumerate(USES):
        figure.add_scatter(
            x=[],
            y=[],
            name=use,
            mode="lines",
            stackgroup="use",
            line={"color": shades[use], "width": 1},
            meta=_follows("gpu", index),
        )
    return figure.to_plotly_json()


def swaps() -> dict[str, Any]:
    """How often one set of models made room for another."""
    figure = _figure("Swaps a minute", "", showlegend=False)
    figure.add_scatter(
        x=[], y=[], name="swaps", mode="lines", line={"color": COLOURS[5], "shape": "hv"}, meta=_follows("swaps")
    )
    return figure.to_plotly_json()


def timeline(models: list[str]) -> dict[str, Any]:
    """Which model ran on each slot, and what was loaded and evicted: one row per slot and one for the memory."""
    shades = colours(models)
    figure = _figure(
        "Who ran: the last 15 minutes",
        "",
        barmode="overlay",
        hovermode="closest",
        height=210,
        bargap=0.25,
    )
    figure.update_yaxes(type="category", autorange="reversed", title=None, automargin=True)
    figure.update_xaxes(nticks=16)
    for model in models:
        figure.add_bar(x=[], y=[], base=[], name=model, orientation="h", marker={"color": shades[model]})
    for name, colour in (("load", "#9aa4af"), ("evict", "#4a5460"), ("backend lost", "#c1121f")):
        figure.add_bar(x=[], y=[], base=[], name=name, orientation="h", marker={"color": colour})
    return figure.to_plotly_json()
