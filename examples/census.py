"""A census of every Python source file on this interpreter's shelves.

One job is one file of the standard library or of an installed package. A worker parses it and
counts lines, functions, classes, annotations and imports. On the way the census shows what a
conductor is for:

    lookup     "modules", held by the conductor, says which distribution an import belongs to
    message    a worker reports each function of more than 500 lines as it meets it
    stats      the workers' counters make the progress line
    failures   a file that does not parse is a failed job, and the run goes on
    crash      halfway, the census kills one of its own workers; nothing goes missing

    python examples/census.py [--workers N] [--limit N] [--out census.jsonl]
                              [--cluster processes|threads|inline|ray|dask] [--address ADDRESS]

With `--cluster inline` all of it happens in one thread, where a breakpoint is a breakpoint; with
that or `threads`, no worker is killed, because a worker is no process of its own.
"""

import argparse
import ast
import dataclasses
import importlib.metadata
import json
import os
import signal
import site
import sys
import sysconfig
import warnings
from collections import Counter
from pathlib import Path

from okanjo_conductor import Conductor, ConductorWorker

LONG = 500
"""Lines above which a function is reported as soon as a worker meets it."""
UNKNOWN = "(not installed)"
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass
class Sheet:
    """What the census notes about one file."""

    path: str
    size: int
    lines: int
    functions: int = 0
    classes: int = 0
    annotations: int = 0
    imports: dict = dataclasses.field(default_factory=dict)
    """Import statements per distribution."""
    longest: tuple = (0, "", 0)
    """Lines, name and line number of the longest function."""


# ------------------------------------------------------------------------------- in the workers


class CensusTaker(ConductorWorker):
    """Fills in the sheet of one file."""

    def __init__(self):
        super().__init__(stats={"files": 0, "bytes": 0, "functions": 0}, stats_interval=1.0)
        self.distributions = {}
        """Answers of the conductor, kept: the same few modules are imported everywhere."""

    def setup(self):
        """Keep still about what other people's code does wrong."""
        warnings.simplefilter("ignore")

    def process_job(self, job):
        """Read, parse and count. A `SyntaxError` fails the job, and only the job."""
        source = Path(job).read_bytes()
        self.stats["files"] += 1
        self.stats["bytes"] += len(source)
        sheet = Sheet(job, size=len(source), lines=len(source.splitlines()))
        modules = self.count(ast.parse(source, filename=job), sheet)
        sheet.imports = self.attribute(modules)
        return sheet

    def count(self, tree, sheet):
        """Count what is in the tree; return how often each top-level module is imported."""
        modules = Counter()
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.count_function(node, sheet)
                case ast.ClassDef():
                    sheet.classes += 1
                case ast.AnnAssign() | ast.arg(annotation=ast.expr()):
                    sheet.annotations += 1
                case ast.Import():
                    modules.update({alias.name.partition(".")[0] for alias in node.names})
                case ast.ImportFrom(module=str(module), level=0):
                    modules[module.partition(".")[0]] += 1
        return modules

    def count_function(self, node, sheet):
        """Count one function, and tell the conductor about it if it is very long."""
        sheet.functions += 1
        self.stats["functions"] += 1
        sheet.annotations += node.returns is not None
        lines = node.end_lineno - node.lineno + 1
        sheet.longest = max(sheet.longest, (lines, node.name, node.lineno))
        if lines > LONG:
            self.send_request_to_master("long_function", (lines, node.name, sheet.path))

    def attribute(self, modules):
        """Turn counts per module into counts per distribution."""
        unknown = modules.keys() - self.distributions.keys()
        if unknown:
            found = self.lookup_many("modules", unknown)
            self.distributions |= {name: found.get(name, UNKNOWN) for name in unknown}
        counts = Counter()
        for name, count in modules.items():
            counts[self.distributions[name]] += count
        return dict(counts)


# ----------------------------------------------------------------------------- in the conductor


def site_folders():
    """Name the folders of installed packages, those of the base interpreter included."""
    return [
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        *site.getsitepackages([sys.base_prefix]),
    ]


def find_files():
    """List every Python source file of the standard library and of installed packages, once."""
    folders = [sysconfig.get_path("stdlib"), *site_folders()]
    return sorted({str(path) for folder in folders for path in Path(folder).rglob("*.py")})


def find_modules():
    """Say of each top-level module which distribution it belongs to."""
    sys.path += [folder for folder in site_folders() if folder not in sys.path]
    modules = dict.fromkeys(sys.stdlib_module_names, "standard library")
    for module, distributions in importlib.metadata.packages_distributions().items():
        modules.setdefault(module, distributions[0])
    return modules


class Screen:
    """A progress line that stays at the bottom of a terminal, and lines that pass above it."""

    def __init__(self):
        self.is_terminal = sys.stdout.isatty()

    def progress(self, text):
        """Show how far it is: in place on a terminal, as one more line elsewhere."""
        if self.is_terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)
        else:
            print(text, flush=True)

    def say(self, text=""):
        """Print a line."""
        print(f"\r\x1b[K{text}" if self.is_terminal else text, flush=True)


class Census:
    """Runs the conductor, shows how it goes, and adds up the sheets."""

    def __init__(self, files, workers, out, cluster="processes"):
        self.files = files
        self.can_kill = cluster == "processes"
        self.out = out
        self.screen = Screen()
        self.seen = set()
        self.totals = Counter()
        self.imports = Counter()
        self.longest = []
        self.long_functions = set()
        self.pids = {}
        self.victim = None
        self.conductor = Conductor(
            CensusTaker,
            jobs_queue=files,
            job_key=str,  # a job is known by its path
            worker_limit=workers,
            cluster=cluster,
            lookups={"modules": find_modules()},
        )
        self.conductor.command("long_function")(self.note_long_function)
        self.conductor.on("worker_start", self.note_worker)
        self.conductor.on("job_done", self.add)
        self.conductor.on("job_failed", self.add)
        self.conductor.on("job_retry", self.note_retry)
        self.conductor.on("stats", self.show_progress)
        self.conductor.on("error", self.note_crash)

    def run(self):
        """Take the census and return the conductor's report."""
        return self.conductor.run()

    def note_worker(self, worker_id, pid):
        """Remember whom we could kill."""
        self.pids[worker_id] = pid

    def note_long_function(self, msg):
        """Take in what a worker met; a file that is parsed twice reports its functions twice."""
        lines, name, path = msg.data
        if lines > max(self.long_functions, default=(LONG,))[0]:
            self.screen.say(f"longest function so far: {lines:,} lines, {name} in {path}")
        self.long_functions.add(msg.data)

    def add(self, outcome):
        """Write down how one file went. Every file comes here exactly once."""
        if outcome.is_done:
            self.add_sheet(outcome.value)
            row = dataclasses.asdict(outcome.value)
        else:
            row = {"path": outcome.key, "error": f"{type(outcome.error).__name__}: {outcome.error}"}
        self.out.write(json.dumps(row) + "\n")
        self.seen.add(outcome.key)
        if self.can_kill and self.victim is None and len(self.seen) * 2 >= len(self.files):
            others = (worker_id for worker_id in self.pids if worker_id != outcome.worker_id)
            self.kill(next(others, outcome.worker_id))  # another one is in the middle of a job

    def add_sheet(self, sheet):
        """Add one file to the totals."""
        self.totals["files"] += 1
        for name in ("size", "lines", "functions", "classes", "annotations"):
            self.totals[name] += getattr(sheet, name)
        self.imports.update(sheet.imports)
        self.longest = sorted([*self.longest, (*sheet.longest, sheet.path)], reverse=True)[:5]

    def kill(self, worker_id):
        """Do to a worker what the kernel does to one that takes too much memory."""
        self.victim = worker_id
        self.screen.say(f"half of it is done: killing worker {worker_id} with SIGKILL")
        os.kill(self.pids[worker_id], signal.SIGKILL)

    def note_crash(self, crash):
        """Say what a crash has cost."""
        job = f"while it parsed {crash.key}" if crash.key else "between two files"
        self.screen.say(f"worker {crash.worker_id} died of {crash.signal} {job}; a new one starts")

    def note_retry(self, key, attempt):
        """Say that the job which was being executed goes back to the queue."""
        self.screen.say(f"attempt {attempt.number} is void, another follows: {key}")

    def show_progress(self, stats):
        """Show the workers' own counters: once a second, since they report once a second."""
        now, before = stats.agg.last, stats.agg.diff
        speed = before["bytes"] / 1e6 / stats.avg_time_span
        self.screen.progress(
            f"{now['files']:7,} of {len(self.files):,} files  {now['bytes'] / 1e6:6.1f} MB  "
            f"{speed:4.1f} MB/s  {now['functions']:9,} functions  "
            f"{len(self.long_functions)} over {LONG} lines"
        )


# ----------------------------------------------------------------------------------- the report


def print_report(census, report):
    """Say what was found, and how it went."""
    say, totals = census.screen.say, census.totals
    say()
    say(f"{totals['files']:,} files parsed, {totals['size'] / 1e6:,.1f} MB")
    for name in ("lines", "functions", "classes", "annotations"):
        say(f"  {totals[name]:12,} {name}")
    say(f"  {sum(census.imports.values()):12,} imports, most of them of")
    for distribution, count in census.imports.most_common(10):
        say(f"    {count:10,} {distribution}")
    say("longest functions")
    for lines, name, number, path in census.longest:
        say(f"  {lines:12,} lines: {name}, {path}:{number}")
    say(f"  {len(census.long_functions):12,} have more than {LONG} lines")
    say()
    say(str(report))
    say()


def is_complete(census, report):
    """Count whether every file has its one outcome, and say so."""
    expected, written = len(census.files), len(census.seen)
    census.screen.say(
        f"{expected:,} files, {report.jobs:,} outcomes, of {written:,} different files; "
        + (f"worker {census.victim} was killed" if census.victim else "no worker was killed")
    )
    return expected == report.jobs == written


def find_cluster(name, address):
    """Return what the conductor takes for a cluster."""
    if name == "ray":
        from okanjo_conductor.clusters import RayCluster

        return RayCluster(address)
    if name == "dask":
        import distributed

        from okanjo_conductor.clusters import DaskCluster

        return DaskCluster(address or distributed.Client(processes=False, dashboard_address=None))
    return name


def main():
    """Take the census; exit with 1 if a file went missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, help="worker processes (default: the conductor's)")
    parser.add_argument("--limit", type=int, help="only so many files, spread over all")
    parser.add_argument("--out", type=Path, default=Path("census.jsonl"), help="one line per file")
    parser.add_argument(
        "--cluster",
        choices=("processes", "threads", "inline", "ray", "dask"),
        default="processes",
        help="where the workers live (default: %(default)s)",
    )
    parser.add_argument("--address", help="of Ray or of a Dask scheduler (default: one of its own)")
    options = parser.parse_args()

    files = find_files()
    if options.limit:
        files = files[:: max(1, len(files) // options.limit)][: options.limit]
    with options.out.open("w") as out:
        cluster = find_cluster(options.cluster, options.address)
        census = Census(files, options.workers, out, cluster)
        report = census.run()
    print_report(census, report)
    if not is_complete(census, report):
        sys.exit("something is missing")
    census.screen.say(f"nothing is missing. Results: {options.out}")


main()
