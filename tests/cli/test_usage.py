"""What is typed: help, versions, mistakes, settings, completions."""

from __future__ import annotations

import subprocess
import sys

import pytest

import okanjo_conductor
from okanjo_conductor.cli import _parser as parsers
from okanjo_conductor.cli import _settings as settings

VERBS = list(parsers._VERBS)


@pytest.mark.parametrize("args", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_goes_to_standard_output(conductor, args):
    lines = conductor.out(*args)

    assert lines[0].startswith("usage: conductor")
    assert max(map(len, lines)) <= 100


def test_the_version(conductor):
    assert conductor.out("--version") == [f"conductor {okanjo_conductor.__version__}"]


def test_nothing_typed_is_answered_with_help(conductor):
    done = conductor()

    assert done.returncode == 2
    assert done.stderr.startswith("usage: conductor")


def test_the_installed_script_is_the_same(conductor):
    script = f"{sys.prefix}/bin/conductor"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"conductor {okanjo_conductor.__version__}\n"


HEAVY = {"okanjo_conductor._conductor", "asyncio", "logging", "sqlite3", "subprocess", "tomllib"}


def test_help_loads_nothing_that_takes_long():
    code = (
        "import sys; from okanjo_conductor.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["rn"], "conductor rn: 'rn' is no verb; did you mean run?"),
        (["--verson"], "conductor: --verson is no option; did you mean --version?"),
        (["run", "x.py", "--job", "y"], "conductor run: --job is no option; did you mean --jobs?"),
        (["exec", "-a", "x"], "conductor exec: -a is no option here: --jobs FILE"),
        (["exec", "--tag", "x"], "conductor exec: --tag is no option here: nothing stands for it"),
        (["exec", "echo {} | wc", ":::", "a"], "'echo {} | wc' is a line for a shell"),
        (["run"], "conductor run: the following arguments are required: TARGET"),
        (["run", "a.py", "b.py"], "conductor run: 'b.py' is one argument too many"),
        (["run", "x.py", "-j", "no"], "conductor run: -j/--workers: 'no' is no number of workers"),
        (["run", "x.py", "-j", "0"], "0 workers can do nothing"),
        (["run", "x.py", "--timeout", "soon"], "--timeout: 'soon' is no time limit: 10s, 2m, or"),
        (["run", "x.py", "--timeout", "0"], "'0' is no time limit"),
        (["run", "x.py", "--max-failures", "100%"], "'100%' is no number of failures"),
        (["run", "x.py", "--halt", "later"], "'later' is no rule to halt"),
        (["run", "x.py", "--halt", "soon,fail=0"], "'soon,fail=0' is no rule to halt"),
        (["run", "x.py", "--halt", "soon,fail=1.5"], "is no rule to halt"),
        (["run", "x.py", "--retries", "-1"], "--retries: '-1' is no whole number"),
        (["run", "x.py", "--concurrency", "0"], "--concurrency: a whole number from 1"),
        (["run", "x.py", "--resume"], "--resume: by what? Give the --journal of the run"),
        (["exec"], "no command: conductor exec"),
        (["exec", "-k"], "no command: conductor exec"),
        (["exec", "--shel", "true"], "--shel is no option; did you mean --shell?"),
        (["exec", "true", "--resume", ":::"], ""),
        (["exec", "--resume", "true", ":::", "1"], "Give the --journal, or the --joblog"),
        (["exec", "--jobs", "a.txt", "true", ":::", "1"], "not in both"),
        (["exec", "--key", "id", "true", ":::", "1"], "arguments behind ::: have no fields"),
        (["exec", "--jobs", "-", "--key", "id", "true"], "lines have no fields"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_a_mistake_costs_one_line(conductor, typed, answer):
    if answer:
        assert answer in conductor.no(*typed)
    else:  # an option behind the command is the command's
        assert conductor.out(*typed) == []


def test_a_file_that_is_not_there_is_named_with_one_like_it(conductor):
    conductor.write("input.jsonl", "")
    conductor.write("census.py", "")

    assert conductor.no("exec", "--jobs", "inptu.jsonl", "true") == (
        "conductor exec: --jobs inptu.jsonl: there is no such file; did you mean input.jsonl?"
    )
    assert conductor.no("run", "cesnus.py").endswith("; did you mean census.py?")
    assert conductor.no("exec", "true", "::::", "inputjsonl").endswith("did you mean input.jsonl?")


def test_a_format_that_the_extension_does_not_tell(conductor):
    conductor.write("jobs.data", '{"n": 1}\n{"n": 2}\n')

    assert "tells no format" in conductor.no("exec", "--jobs", "jobs.data", "echo")
    lines = conductor.out("exec", "-k", "--jobs", "jobs.data", "--format", "jsonl", "echo")
    assert lines == ["1", "2"]


def test_a_fault_of_our_own_is_told_without_its_traceback(conductor, monkeypatch, capsys):
    from okanjo_conductor import cli

    def broken(parser, args):
        raise RuntimeError("broken inside")

    monkeypatch.setitem(cli._VERBS, "run", broken)
    assert cli.main(["run"]) == 70
    assert capsys.readouterr().err == (
        "conductor run: a fault of our own (-vv shows it), please report it: "
        "RuntimeError: broken inside\n"
    )
    with pytest.raises(RuntimeError):
        cli.main(["run", "-vv"])


# Settings


MEET = 'echo >> met; while [ "$(wc -l < met)" -lt 3 ]; do sleep 0.01; done; echo $0'
"""Ends when three jobs are being executed."""


def test_settings_of_the_project_are_taken(conductor):
    conductor.write("pyproject.toml", "[tool.okanjo-conductor]\nkeep-order = true\nworkers = 3\n")
    below = conductor.folder / "below"
    below.mkdir()

    assert conductor.out("exec", "sh", "-c", MEET, ":::", *"012", cwd=below) == ["0", "1", "2"]


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path):
    _, verbs = parsers.build()
    text = "[tool.okanjo-conductor]\nworkers = 3\nretries = 1\nkeep-order = true\n"
    (tmp_path / "pyproject.toml").write_text(text)

    def parsed(environ, *typed):
        made = settings.as_arguments(verbs["exec"], environ, str(tmp_path))
        return verbs["exec"].parse([*made, *typed])

    options = parsed({"OKANJO_CONDUCTOR_WORKERS": "5", "HOME": "/"})
    assert (options.workers, options.retries, options.keep_order) == (5, 1, True)
    options = parsed({"OKANJO_CONDUCTOR_WORKERS": "5"}, "-j", "7", "--no-keep-order")
    assert (options.workers, options.keep_order) == (7, False)


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        ("worker = 3", "knows no setting 'worker'; did you mean workers?"),
        ('timeout = "soon"', "pyproject.toml: timeout: 'soon' is no time limit"),
        ("keep-order = 3", "keep-order: true or false, not 3"),
        ("workers = true", "workers: a number or a text, not True"),
        ('format = "xml"', "format: 'xml' is none of lines, jsonl, csv, tsv"),
        ("workers = ", "pyproject.toml cannot be read"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(conductor, table, answer):
    conductor.write("pyproject.toml", f"[tool.okanjo-conductor]\n{table}\n")

    assert answer in conductor.no("exec", "true", ":::", "1")


def test_a_table_that_is_none(conductor):
    conductor.write("pyproject.toml", "[tool]\nokanjo-conductor = 3\n")

    assert "tool.okanjo-conductor is no table" in conductor.no("exec", "true", ":::", "1")


def test_a_variable_that_is_no_setting_is_named(conductor):
    env = {"OKANJO_CONDUCTOR_WORKRES": "3"}

    answer = conductor.no("exec", "true", ":::", "1", env=env)
    assert answer.endswith("is no setting; did you mean OKANJO_CONDUCTOR_WORKERS?")


def test_a_setting_of_another_verb_is_left_alone(conductor):
    conductor.write("pyproject.toml", "[tool.okanjo-conductor]\nshell = true\nverbose = 0\n")
    conductor.write("work.py", "def twice(job):\n    return job * 2\n")

    assert conductor.out("exec", "echo {} | cat", ":::", "1") == ["1"]
    lines = conductor.out("run", "work.py:twice", "--jobs", "-", stdin="ab\n")
    assert lines == ['{"key": "ab", "value": "abab"}']


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_know_verbs_and_options(conductor, shell):
    text = "\n".join(conductor.out("completion", shell))

    assert "conductor" in text
    for word in ("export", "keep-order", "max-failures"):
        assert word in text


def test_bash_completes(conductor):
    (conductor.folder / "done.bash").write_text("\n".join(conductor.out("completion", "bash")))
    script = (
        "source ./done.bash; COMP_WORDS=(conductor st); COMP_CWORD=1; _shtab_conductor; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=conductor.folder, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["status"]
