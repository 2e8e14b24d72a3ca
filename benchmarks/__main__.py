"""The command line: measure, print the tables, write files where asked."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import page, plot, rounds
from benchmarks.contenders import CONTENDERS, is_installed
from benchmarks.jobs import loops_per_second
from benchmarks.targets import verdicts
from benchmarks.workloads import WORKLOADS, Settings


def main() -> None:
    """Run."""
    args = _arguments()
    settings = Settings(loops_per_second=loops_per_second(), scale=0.05 if args.quick else 1.0)
    count = args.rounds or (1 if args.quick else 5)
    contenders = [name for name in CONTENDERS if _is_chosen(name, args.rivals)]
    missing = [name for name in contenders if not is_installed(name)]
    for name in missing:
        _say(f"{name}: not installed, left out")
    contenders = [name for name in contenders if name not in missing]
    table = rounds.run(args.only, contenders, count, settings, _say)
    text = page.tables(table, count)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(_report(table, count, settings), indent=1) + "\n")
    if args.svg:
        args.svg.write_text(plot.draw(table))
    if args.page:
        page.insert(args.page, text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick 1")
    parser.add_argument("--quick", action="store_true", help="little work: shows that it works")
    parser.add_argument("--only", type=_workloads, default=list(WORKLOADS), metavar="NOOP,TAIL,…")
    parser.add_argument("--rivals", type=_rivals, metavar="POOL,JOBLIB,…")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the medians")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into a page")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: 1 or more")
    return args


def _workloads(text: str) -> list[str]:
    return _names(text, list(WORKLOADS))


def _rivals(text: str) -> list[str]:
    return _names(text, [name for name in CONTENDERS if not name.startswith("conductor")])


def _names(text: str, known: list[str]) -> list[str]:
    names = text.split(",") if text else []
    for name in names:
        if name not in known:
            message = f"{name!r}: choose among {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
    return names


def _is_chosen(name: str, rivals: list[str] | None) -> bool:
    return rivals is None or name in rivals or name.startswith("conductor")


def _report(table: rounds.Table, count: int, settings: Settings) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": page.machine(),
        "versions": page.versions(),
        "rounds": count,
        "settings": asdict(settings),
        "targets": [
            {
                "workload": verdict.target.workload,
                "what": verdict.target.what,
                "limit": verdict.target.limit(),
                "values": verdict.values,
                "median": verdict.value if verdict.values else None,
                "is_met": verdict.is_met,
            }
            for verdict in verdicts(table)
        ],
        "workloads": {
            workload: {contender: asdict(series) for contender, series in row.items()}
            for workload, row in table.items()
        },
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
