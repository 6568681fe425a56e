"""Tables and the figure of a comparison: CSV of every cell, Markdown and LaTeX with mean ± spread over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from poflow_lite.checkpoints import prepare_folder, write_atomically
from poflow_lite.studies import figures
from poflow_lite.studies.markdown import markdown_table, origin

__all__ = ["Row", "best_rows", "margins", "summarise", "write_tables"]

Figure = tuple[float, float | None]
"""Mean over seeds, and standard deviation over them where there are two or more."""


@dataclass(frozen=True)
class Row:
    """One model moved by one operator, over all its seeds.

    Attributes:
        label: model, with the varied setting if there is one.
        operator: how its latents are moved; "floor" for frames that are encoded and decoded by themselves.
        errors: k ↦ equivariance error.
        prediction, vp_score: of this operator; ``None`` where they were not measured.
        reconstruction, index_accuracy: of the model whatever the operator, in the row of its floor; otherwise ``None``.
        cost: time of a training step ÷ that of the plain VAE, or of the cheapest model; in the row of the floor.
    """

    label: str
    operator: str
    errors: dict[str, Figure]
    prediction: Figure | None = None
    vp_score: Figure | None = None
    reconstruction: Figure | None = None
    index_accuracy: Figure | None = None
    cost: Figure | None = None


def summarise(result: Mapping[str, Any]) -> list[Row]:
    """Means and spreads over seeds: a row for every model and operator, with the model's reconstruction floor first.

    Args:
        result: of :func:`comparison.compare`.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for cell in result["cells"]:
        label = ", ".join([cell["model"], *(f"{name} = {value}" for name, value in cell["variant"].items())])
        groups.setdefault(label, []).append(cell)
    costs = result["costs"]
    rows = []
    for label, cells in groups.items():
        of_model = [_figure([cell.get(name) for cell in cells]) for name in ("reconstruction", "index_accuracy")]
        unit = costs.get("vae", min(costs.values(), default=1.0))
        cost = _figure([costs[cells[0]["model"]] / unit]) if costs else None
        floors = [cell["references"]["reconstruction_floor"] for cell in cells]
        rows.append(Row(label, "floor", _errors(floors), None, None, *of_model, cost))
        for operator in cells[0]["operators"]:
            measured = [cell["operators"][operator] for cell in cells]
            errors = _errors([entry["equivariance_error"] for entry in measured])
            scores = [_figure([entry.get(name) for entry in measured]) for name in ("prediction", "vp_score")]
            rows.append(Row(label, operator, errors, *scores))
    return rows


def _figure(values: Sequence[float | None]) -> Figure | None:
    if any(value is None for value in values):
        return None
    return mean(values), stdev(values) if len(values) > 1 else None


def _errors(measured: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    return {k: _figure([entry[k] for entry in measured]) for k in measured[0]}


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """Each model moved by what serves it best: the operator with the least error, all k weighing alike.

    The row also holds what is known of the model as a whole, which otherwise stands in the row of its floor.
    """
    best = []
    for floor in (row for row in rows if row.operator == "floor"):
        own = [row for row in rows if row.label == floor.label and row is not floor]
        chosen = min(own, key=lambda row: sum(row.errors[k][0] / floor.errors[k][0] for k in floor.errors))
        of_model = {name: getattr(floor, name) for name in ("reconstruction", "index_accuracy", "cost")}
        best.append(replace(chosen, **of_model))
    return best


def margins(rows: Sequence[Row], ours: str = "flow-factorized") -> dict[str, dict[str, float]]:
    """How far the flow of ``ours`` lies below the best baseline under each operator: operator ↦ k ↦ share.

    0.3 is an error 30 % below, a negative share one above. Baselines are all models but ``ours`` and the weakly
    supervised one, which is the same model; their own transports, "roll" and PoFlow's "flow", are operators as well.
    """
    errors = {(row.label, row.operator): row.errors for row in rows}
    if (ours, "flow") not in errors:
        return {}
    own, lowest = errors[ours, "flow"], {}
    for (label, operator), found in errors.items():
        if not label.startswith((ours, "weakly-supervised")) and operator != "floor":
            best = lowest.setdefault(operator, {k: value for k, (value, _) in found.items()})
            lowest[operator] = {k: min(best[k], found[k][0]) for k in best}
    return {operator: {k: 1 - own[k][0] / best[k] for k in best} for operator, best in lowest.items()}


def write_tables(result: Mapping[str, Any], out: str | Path) -> str:
    """Write ``table.csv``, ``table.md``, ``table.tex`` and ``comparison.png`` into ``out``; give the Markdown.

    Raises:
        ValueError: if no cell is done.
    """
    if not result["cells"]:
        raise ValueError("no cell of the comparison is done: there is nothing to put into a table")
    folder, rows = prepare_folder(out), summarise(result)
    markdown = _markdown(rows, result)
    texts = {"table.csv": _csv(result), "table.md": markdown, "table.tex": _latex(rows, result)}
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    no_motion = result["cells"][0]["references"]["no_motion"]
    figure = figures.comparison_dots(rows, no_motion, f"{result['data_set']}, budget {result['budget']}")
    write_atomically(folder / "comparison.png", lambda path: figure.savefig(path, dpi=150, format="png"))
    return markdown


def _csv(result: Mapping[str, Any]) -> str:
    """One line for each model, seed and operator, unrounded."""
    names = list(result["cells"][0]["references"]["no_motion"])
    of_model = ("reconstruction", "index_accuracy")
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["model", "variant", "seed", "operator", *names, "prediction", "vp_score", *of_model])
    for cell in result["cells"]:
        variant = " ".join(f"{name}={value}" for name, value in cell["variant"].items())
        entries = {
            **{name: {"equivariance_error": errors} for name, errors in cell["references"].items()},
            **cell["operators"],
        }
        for operator, entry in entries.items():
            errors = [entry["equivariance_error"][name] for name in names]
            scores = [entry.get(name, "") for name in ("prediction", "vp_score")]
            shared = [cell.get(name, "") for name in of_model]
            table.writerow([cell["model"], variant, cell["seed"], operator, *errors, *scores, *shared])
    return buffer.getvalue()


def _cells_of(row: Row, pm: str) -> list[str]:
    """Texts of the columns after model and operator."""

    def text(figure: Figure | None, form: str) -> str:
        if figure is None:
            return ""
        value, spread = figure
        return f"{value:{form}}" + ("" if spread is None else f" {pm} {spread:{form}}")

    return [
        *(text(figure, ".0f") for figure in row.errors.values()),
        text(row.prediction, ".1f"),
        text(row.vp_score, ".2f"),
        text(row.reconstruction, ".1f"),
        text(row.cost, ".2f"),
    ]


def _headings(rows: Sequence[Row]) -> list[str]:
    return ["model", "moved by", *rows[0].errors, "prediction", "VP score", "reconstruction", "cost"]


def _markdown(rows: Sequence[Row], result: Mapping[str, Any]) -> str:
    errors = list(rows[0].errors)
    references = []
    for name in ("no_motion", "median_frame"):
        values = result["cells"][0]["references"][name]
        references.append([name.replace("_", " "), "", *(f"{values[k]:.0f}" for k in errors), "", "", "", ""])

    def lines(chosen: Sequence[Row]) -> list[list[str]]:
        return [[row.label, row.operator, *_cells_of(row, "±")] for row in chosen]

    best, every = (markdown_table(_headings(rows), references + lines(some), 2) for some in (best_rows(rows), rows))
    parts = ["Each model, moved by what serves it best:", best]
    below = margins(rows)
    if below:
        parts.append("The flow of flow-factorized lies below the best baseline under each operator by")
        shares = [[name, *(f"{round(found[k], 2) + 0.0:.0%}" for k in errors)] for name, found in below.items()]
        parts.append(markdown_table(["operator", *errors], shares))
    for row in rows:
        if row.index_accuracy is not None:
            parts.append(f"{row.label} names {row.index_accuracy[0]:.1%} of the sequences rightly (best matching).")
    parts += ["Every model with every operator:", every]
    return "\n\n".join([*parts, "\n".join(_foot(result))]) + "\n"


def _latex(rows: Sequence[Row], result: Mapping[str, Any]) -> str:
    headings = _headings(rows)
    lines = [
        *(f"% {line}" for line in _foot(result)),
        rf"\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}",
        r"\hline",
        " & ".join(headings) + r" \\",
        r"\hline",
    ]
    for i, row in enumerate(rows):
        if i and row.label != rows[i - 1].label:
            lines.append(r"\hline")
        label = row.label.replace("_", r"\_")
        lines.append(" & ".join([label, row.operator, *_cells_of(row, r"$\pm$")]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _foot(result: Mapping[str, Any]) -> list[str]:
    """What the columns are, what the models share and in what they differ, and where the figures come from."""
    cells, settings = result["cells"], result["settings"]
    seeds = sorted({cell["seed"] for cell in cells})
    spread = "mean ± standard deviation over" if len(seeds) > 1 else "of"
    shared = dict(next(iter(settings.values())))
    same = [name for name in shared if name != "own" and all(s[name] == shared[name] for s in settings.values())]
    differ = {
        model: {name: value for name, value in chosen.items() if name not in (*same, "own")} | chosen["own"]
        for model, chosen in settings.items()
    }
    lines = [
        f"{result['data_set']}, budget {result['budget']}; {spread} seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}.",
        "Errors: L1 pixel intensities summed over frames. Prediction, reconstruction: nats per frame under N(x̂, I). "
        "Cost: time of a training step ÷ that of the plain VAE. Floor: frames encoded and decoded by themselves.",
        "The same for all: " + ", ".join(f"{name} {shared[name]}" for name in same if name != "test_images") + ".",
        "Different: "
        + "; ".join(f"{m} ({', '.join(f'{n} {v}' for n, v in own.items())})" for m, own in differ.items() if own)
        + ".",
        origin(result, cells[0]["device"]),
    ]
    return lines
