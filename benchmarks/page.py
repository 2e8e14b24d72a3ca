"""The tables, for the terminal and for docs/performance.md, and the machine they are from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.contenders import MODULES
from benchmarks.rounds import Series, Table
from benchmarks.targets import US, Verdict, ratio_to_ours, verdicts
from benchmarks.workloads import WORKLOADS

_BEGIN = "<!-- figures: begin, written by `make bench` -->"
_END = "<!-- figures: end -->"


def machine() -> dict[str, Any]:
    """Describe what this runs on, without its name."""
    return {
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Name the versions of all contenders."""
    found = {}
    for name in ("okanjo-conductor", "uvloop", "numpy", *MODULES.values()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tables(table: Table, rounds: int) -> str:
    """Write everything out in Markdown."""
    here = machine()
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "\n\n".join(
        [
            (
                f"Two workers; {here['cpus']} CPUs of {here['cpu']}, {here['memory_gib']} GiB, "
                f"{here['system']}, {here['python']}; {packages}. Medians of {rounds} interleaved "
                "rounds, lowest and highest in brackets; ratios are formed within each round."
            ),
            _markdown(
                ["what", "figure", "measured", "target", "met"],
                [_verdict_row(v) for v in verdicts(table)],
            ),
            _markdown(
                ["what", "contender", "median", "spread", "Conductor is … times as good"],
                [row for workload in table for row in _figure_rows(table, workload)],
            ),
        ]
    )


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    page = path.read_text()
    before, rest = page.split(_BEGIN)
    after = rest.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def _verdict_row(verdict: Verdict) -> list[str]:
    target = verdict.target
    measured = "–"
    if verdict.values:
        low, high = min(verdict.values), max(verdict.values)
        measured = f"{number(verdict.value)} ({number(low)}–{number(high)})"
    title = WORKLOADS[target.workload].title
    return [title, target.what, measured, target.limit(), _word(verdict)]


def _word(verdict: Verdict) -> str:
    if not verdict.values:
        return "**not measured**"
    return {True: "yes", False: "**no**", None: "–"}[verdict.is_met]


def _figure_rows(table: Table, workload: str) -> list[list[str]]:
    kind = WORKLOADS[workload]
    return [
        [
            f"{kind.title}, {kind.unit}" if index == 0 else "",
            contender,
            *_middle(series, kind.figure),
            "" if contender == US else _ratio(ratio_to_ours(table, workload, contender)),
        ]
        for index, (contender, series) in enumerate(table[workload].items())
    ]


def _middle(series: Series, figure: str) -> tuple[str, str]:
    values = series.values(figure)
    if not values:
        return series.problem, ""
    lost = len(series.rounds) - len(values)
    note = f"; {lost} rounds {series.problem}" if lost else ""
    return number(series.median(figure)), f"{number(min(values))}–{number(max(values))}{note}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else number(ratio)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """Lay a table out so that it can be read as plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    found = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
