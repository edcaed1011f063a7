"""A comparison as text and as plain data.

Rule: every figure carries its unit; ratios say how many times better a policy is than the reference. Must not
know: how the figures came about.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optimizer.simulation.experiment import Comparison, ratio
from optimizer.simulation.metrics import ModelFigures, Summary, by_model


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `better` is "high", "low" or "" (no ratio)."""

    label: str
    field: str
    unit: str
    better: str = ""
    share: bool = False


ROWS = (
    Row("answers per minute", "answers_per_min", "1/min", "high"),
    Row("answers within target per minute", "goodput_per_min", "1/min", "high"),
    Row("agents without an answer", "agents_without_answer", "agents"),
    Row("requests", "requests", ""),
    Row("answered", "answered", ""),
    Row("refused", "rejected", ""),
    Row("given up by the client", "gave_up", ""),
    Row("open when the clock stopped", "left_open", ""),
    Row("mean latency", "mean_s", "s", "low"),
    Row("median latency", "p50_s", "s", "low"),
    Row("p95 latency", "p95_s", "s", "low"),
    Row("mean latency / target", "mean_per_target", "x", "low"),
    Row("within target", "within_target", "%", "high", share=True),
    Row("worst wait for a start", "worst_wait_s", "s", "low"),
    Row("fairness over agents (Jain)", "fairness", ""),
    Row("makespan", "makespan_s", "s", "low"),
    Row("model loads", "loads", ""),
    Row("GPU: all slots busy", "full_share", "%", share=True),
    Row("GPU: some slots busy", "partial_share", "%", share=True),
    Row("GPU: swapping, nothing runs", "swapping_share", "%", share=True),
    Row("GPU: held back", "held_share", "%", share=True),
    Row("GPU: nothing to do", "empty_share", "%", share=True),
)


def text(comparison: Comparison) -> str:
    """The table: means over the seeds, and in brackets how many times better than the reference (if it took part)."""
    names = list(comparison.means)
    reference = comparison.means.get(comparison.reference)
    cells = [["", *names]]
    for row in ROWS:
        cells.append([_label(row), *(_cell(row, comparison.means[name], reference) for name in names)])
    if comparison.bound_s:
        cells.append(["makespan / proven lower bound", *(f"{_over_bound(comparison, name):.3f}" for name in names)])
    cells += _model_cells(comparison)
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def data(comparison: Comparison) -> dict[str, Any]:
    """The same as plain values, with each seed's figures. Shares are of 1, times in seconds."""
    reference = comparison.means.get(comparison.reference)
    return {
        "workload": comparison.workload,
        "lower_bound_s": comparison.bound_s or None,
        "policies": {
            name: {
                "mean": dataclasses.asdict(mean),
                f"times_better_than_{comparison.reference}": dict(_ratios(mean, reference)),
                "models": {model: dataclasses.asdict(figures) for model, figures in _models(comparison, name).items()},
                "makespan_over_bound": _over_bound(comparison, name) if comparison.bound_s else None,
                "seeds": [
                    {"seed": result.seed, "lower_bound_s": result.bound_s or None, **dataclasses.asdict(result.summary)}
                    for result in comparison.results[name]
                ],
            }
            for name, mean in comparison.means.items()
        },
    }


def _models(comparison: Comparison, name: str) -> dict[str, ModelFigures]:
    return by_model([result.history for result in comparison.results[name]])


def _model_cells(comparison: Comparison) -> list[list[str]]:
    """Per model: who was answered, and the p95 and worst wait over all seeds."""
    figures = {name: _models(comparison, name) for name in comparison.results}
    models = sorted({model for of_policy in figures.values() for model in of_policy})
    cells = []
    for model in models:
        of_model = [of_policy[model] for of_policy in figures.values()]
        cells.append([f"{model}: answered, %", *(f"{100 * f.answered / f.requests:.1f}" for f in of_model)])
        cells.append([f"{model}: p95 latency, s", *(f"{f.p95_s:.1f}" for f in of_model)])
        cells.append([f"{model}: worst wait, s", *(f"{f.worst_wait_s:.1f}" for f in of_model)])
    return cells


def _over_bound(comparison: Comparison, name: str) -> float:
    """Mean over seeds of makespan / lower bound."""
    runs = comparison.results[name]
    return sum(result.summary.makespan_s / result.bound_s for result in runs) / len(runs)


def _ratios(mean: Summary, reference: Summary | None) -> Iterator[tuple[str, float]]:
    for row in ROWS:
        if reference is not None and row.better:
            times = ratio(getattr(mean, row.field), getattr(reference, row.field), row.better == "high")
            if times is not None:
                yield row.field, times


def _label(row: Row) -> str:
    return f"{row.label}, {row.unit}" if row.unit else row.label


def _cell(row: Row, mean: Summary, reference: Summary | None) -> str:
    value: float = getattr(mean, row.field)
    shown = f"{value * 100:.1f}" if row.share else f"{value:.2f}"
    if reference is None or reference is mean or not row.better:
        return shown
    times = ratio(value, getattr(reference, row.field), row.better == "high")
    return shown if times is None else f"{shown} ({times:.2f}x)"
