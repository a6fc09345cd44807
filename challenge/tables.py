"""A result as CSV and as a LaTeX table: the same numbers as its JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_LATEX = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"})


def flat_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of `evaluate` as rows of figure, value, low, high; rates are shares."""
    rows = [{"figure": name, "value": values[name]["value"], "low": values[name]["low"], "high": values[name]["high"]} for name in ("accuracy", "auc", "eer")]
    rows += [{"figure": f"FNMR@FMR={row['fmr']:g}", "value": row["fnmr"], "low": row["low"], "high": row["high"]} for row in values["fnmr_at_fmr"]]
    if values.get("threshold"):
        rows += [{"figure": f"threshold {name}", "value": values["threshold"][name], "low": None, "high": None} for name in ("best_accuracy", "loss", "fmr", "fnmr")]
    rows += [{"figure": f"accuracy of {row['group']}", "value": row["accuracy"], "low": None, "high": None} for row in values["groups"]]
    rows += [{"figure": name, "value": value, "low": None, "high": None} for name, value in values.get("challenge", {}).items() if isinstance(value, (int, float))]
    return rows + [{"figure": "failure to acquire", "value": values["failure_to_acquire"]["rate"], "low": None, "high": None}]


def csv_text(values: Mapping[str, Any]) -> str:
    """Return the figures as CSV with a header line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("name", "system", "figure", "value", "low", "high"))
    writer.writeheader()
    for row in flat_rows(values):
        writer.writerow({"name": values["name"], "system": values["system"], **{key: "" if value is None else value for key, value in row.items()}})
    return buffer.getvalue()


def latex_text(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a table (booktabs), one row a result, in per cent with the interval's ends below the figure."""
    head = ["system", "accuracy", "AUC", "EER", *[f"FNMR@FMR={100 * fmr:g}\\,\\%" for fmr in (1e-2, 1e-3)]]
    lines = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    for values in results:
        cells = [values["accuracy"], values["auc"], values["eer"], *[next(({"value": row["fnmr"], **row} for row in values["fnmr_at_fmr"] if row["fmr"] == fmr), None) for fmr in (1e-2, 1e-3)]]
        lines.append(" & ".join([values["system"].translate(_LATEX), *map(_cell, cells)]) + r" \\")
    level = 100 * results[0]["interval"]["level"]
    note = f"{results[0]['name'].translate(_LATEX)}; in \\%, brackets: {level:g}\\,\\% bootstrap interval over {results[0]['interval']['drawn']}."
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {note}", ""])


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "--"
    return f"{100 * figure['value']:.2f} {{\\scriptsize[{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]}}"
