"""One measurement: `python -m benchmarks.child WORKLOAD CONTENDER LOOPS_PER_SECOND SCALE`.

Prints its figures as JSON in the last line of its standard output; `problem` instead of them if the
contender failed.
"""

from __future__ import annotations

import sys
import traceback

from benchmarks.workloads import WORKLOADS, Settings, leave_with


def main() -> None:
    """Measure what the command line says."""
    workload, contender, loops, scale = sys.argv[1:]
    settings = Settings(loops_per_second=float(loops), scale=float(scale))
    try:
        figures = WORKLOADS[workload].measure(contender, settings)
    except Exception as error:
        traceback.print_exc()
        leave_with({"problem": type(error).__name__})
    leave_with(figures)


if __name__ == "__main__":
    main()
