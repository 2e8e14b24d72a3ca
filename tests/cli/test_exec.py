"""Commands as jobs."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from okanjo_conductor.cli._joblog import COLUMNS
from okanjo_conductor.testing.fixtures import processes_of_this_test

from .conftest import DEADLINE

# Where the jobs come from


def test_arguments_are_jobs(conductor):
    assert sorted(conductor.out("exec", "echo", "-", ":::", "a", "b c")) == ["- a", "- b c"]


def test_a_line_of_standard_input_is_a_job(conductor):
    lines = conductor.out("exec", "-k", "echo", "<{}>", stdin="a\nb  c\n\n d\n")

    assert lines == ["<a>", "<b  c>", "< d>"]


def test_rows_of_a_table_fill_their_fields(conductor):
    conductor.write("files.csv", "path,size\nx/a.mov,3\nb.mov,4\n")
    template = ("echo", "{path}", "{stem}.mp4", "{size}", "{path/}", "{path//}", "{path.}")

    assert conductor.out("exec", "-k", "--jobs", "files.csv", "--", *template) == [
        "x/a.mov a.mp4 3 a.mov x x/a",
        "b.mov b.mp4 4 b.mov . b",
    ]


def test_rows_of_json_and_their_values(conductor):
    conductor.write("in.jsonl", '{"a": [1, "x"], "b": null, "c": true}\n')
    lines = conductor.out(
        "exec", "--jobs", "in.jsonl", "echo", "{a}", "<{b}>", "{c}", "{2}", "{-1}"
    )

    assert lines == ['[1, "x"] <> true  true']


def test_inputs_are_combined_or_linked(conductor):
    inputs = (":::", "a", "b", ":::", "1", "2", ":::+", "x", "y")
    lines = conductor.out("exec", "-k", "echo", "{1}{2}{3}", *inputs)

    assert lines == ["a1x", "a2y", "b1x", "b2y"]


def test_a_shorter_linked_input_begins_again(conductor):
    lines = conductor.out("exec", "-k", "echo", "{1}{2}", ":::", "a", "b", "c", ":::+", "1", "2")

    assert lines == ["a1", "b2", "c1"]


def test_files_of_inputs(conductor):
    conductor.write("one.txt", "a\nb\n")
    lines = conductor.out("exec", "-k", "echo", ":::", "1", "::::", "one.txt", "-", stdin="x\n")

    assert lines == ["1 a x", "1 b x"]


def test_no_jobs_are_no_failure(conductor):
    assert conductor.out("exec", "echo", stdin="") == []


def test_jobs_are_read_as_they_are_wanted(conductor):
    process = conductor.start("exec", "-j1", "echo")
    try:
        for word in ("first", "second"):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{word}\n"
    finally:
        _, said = process.communicate(timeout=DEADLINE)
    assert (said, process.returncode) == ("", 0)


def test_a_terminal_is_not_read(conductor):
    ours, theirs = os.openpty()
    process = conductor.start("exec", "echo", stdin=theirs)
    os.close(theirs)
    _, said = process.communicate(timeout=DEADLINE)
    os.close(ours)

    assert (process.returncode, said) == (
        2,
        "conductor exec: no jobs: give --jobs FILE, arguments behind :::, or pipe them in\n",
    )


# Placeholders


def test_the_parts_of_a_path(conductor):
    template = ("{}", "{.}", "{/}", "{//}", "{/.}", "{stem}", "{#}", "{1/.}")
    lines = conductor.out("exec", "-k", "-j1", "echo", *template, ":::", "d.d/a.tar.gz", ".x", "/y")

    assert lines == [
        "d.d/a.tar.gz d.d/a.tar a.tar.gz d.d a.tar a.tar 1 a.tar",
        ".x .x .x . .x .x 2 .x",
        "/y /y y / y y 3 y",
    ]


def test_each_job_knows_its_slot(conductor):
    script = 'test "$1" = "$PARALLEL_JOBSLOT" && test "$2" = "$PARALLEL_SEQ" && echo "$1"'
    lines = conductor.out("exec", "-j2", "sh", "-c", script, "-", "{%}", "{#}", ":::", *"abcdef")

    assert len(lines) == 6
    assert set(lines) <= {"1", "2"}


def test_nothing_that_is_inserted_is_read_by_a_shell(conductor):
    evil = "$(touch evil); `touch evil` * 'q' \"q\" \\ & |"

    assert conductor.out("exec", "echo", "{}", ":::", evil) == [evil]
    assert conductor.out("exec", "--shell", "echo {} | cat", ":::", evil) == [evil]
    assert conductor.out("exec", "--shell", "echo", "{}", ":::", "a'b; c") == ["a'b; c"]
    assert not (conductor.folder / "evil").exists()


def test_braces_around_other_things_are_left_alone(conductor):
    template = ("echo", "{ x }", "{a,b}", "${HOME}", "{{name}}", "{}{}", "{1..3}")

    lines = conductor.out("exec", *template, ":::", "v")
    assert lines == ["{ x } {a,b} ${HOME} {name} vv {1..3}"]


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("{pat}", "conductor: {pat}: a job has no such field; there are: {path}, {size}; did you "),
        ("{3}", "conductor: {3}: a job has 2 inputs"),
        ("{0}", "conductor: {0}: a job has 2 inputs"),
    ],
)
def test_a_field_that_no_job_has_is_named(conductor, template, answer):
    conductor.write("files.csv", "path,size\na,1\n")

    assert answer in conductor.no("exec", "--jobs", "files.csv", "echo", template)


def test_a_field_of_lines_is_refused(conductor):
    answer = conductor.no("exec", "echo", "{name}", ":::", "a")

    assert answer.endswith("{name}: the jobs are no rows with fields; a literal {name} is {{name}}")


def test_rows_have_no_one_value(conductor):
    conductor.write("files.csv", "a,b\n1,2\n")

    assert "a job has 2 fields here" in conductor.no("exec", "--jobs", "files.csv", "echo", "{}")
    conductor.write("one.csv", "a\n1\n")
    assert conductor.out("exec", "--jobs", "one.csv", "echo", "{.}") == ["1"]


def test_a_broken_input_is_told_with_its_place(conductor):
    conductor.write("in.jsonl", '{"a": 1}\nnot\n')
    done = conductor("exec", "--jobs", "in.jsonl", "echo", "{a}")

    assert (done.returncode, done.stdout) == (2, "1\n")
    assert "conductor: in.jsonl, line 2, column 1: not JSON: Expecting value" in done.stderr


def test_names_that_are_no_text_reach_the_command(conductor):
    name = os.fsdecode(b"caf\xe9")
    (conductor.folder / name).write_text("found")

    assert conductor.out("exec", "cat", ":::", name) == ["found"]
    assert conductor.out("exec", "--dry-run", "cat", ":::", name) == [f"cat '{name}'"]


def test_a_dry_run_shows_the_commands(conductor):
    lines = conductor.out("exec", "--dry-run", "touch", "{}", "{%}", ":::", "a b", "c")

    assert lines == ["touch 'a b' '{%}'", "touch c '{%}'"]
    assert not (conductor.folder / "c").exists()


# What comes of them

SAY = 'i=0; while [ $i -lt 50 ]; do echo "$0 $i"; echo "$0 $i" >&2; i=$((i+1)); done'


def test_the_output_of_a_job_is_kept_together(conductor):
    done = conductor("exec", "-j4", "sh", "-c", SAY, ":::", *"abcd")

    assert done.returncode == 0
    for text in (done.stdout, done.stderr):
        lines = text.splitlines()
        order = [line.split()[0] for line in lines[::50]]
        assert lines == [f"{name} {i}" for name in order for i in range(50)]


def test_output_in_the_order_of_the_jobs(conductor, tmp_path):
    os.mkfifo(tmp_path / "gate")
    script = "case $0 in first) cat gate >/dev/null;; last) echo > gate;; esac; echo $0"
    lines = conductor.out("exec", "-k", "-j2", "sh", "-c", script, ":::", "first", "mid", "last")

    assert lines == ["first", "mid", "last"]


def test_bytes_come_out_as_they_went_in(conductor):
    done = subprocess.run(
        conductor.argv("exec", "printf", "\\377\\000x", ":::", ""),
        env=conductor.env, capture_output=True, check=True,
    )  # fmt: skip

    assert done.stdout == b"\xff\x00x"


def test_much_output_comes_out_whole(conductor):
    done = conductor("exec", "head", "-c", "{}", "/dev/zero", ":::", str(3_000_000))

    assert len(done.stdout) == 3_000_000


def test_a_command_that_fails_fails_its_job(conductor):
    done = conductor("exec", "-k", "sh", "-c", "echo $0; echo why >&2; exit $0", ":::", "0", "3")

    assert (done.returncode, done.stdout) == (1, "0\n3\n")
    assert "conductor: job 2 exited with code 3: sh -c" in done.stderr
    assert "2 jobs: 1 done, 1 failed" in done.stderr
    assert done.stderr.count("why\n") == 2


def test_quiet_leaves_the_commands_own_words(conductor):
    done = conductor("exec", "-q", "sh", "-c", "echo why >&2; exit 3", ":::", "1")

    assert (done.returncode, done.stderr) == (1, "why\n")


def test_a_signal_fails_its_job(conductor):
    done = conductor("exec", "--joblog", "log", "sh", "-c", "kill -SEGV $$", ":::", "1")

    assert done.returncode == 1
    assert "job 1 was ended by SIGSEGV" in done.stderr
    assert (conductor.folder / "log").read_text().splitlines()[1].split("\t")[6:8] == ["0", "11"]


def test_commands_that_cannot_be_started(conductor):
    conductor.write("plain", "no program")
    for command, code, why in (
        ("nosuchcommand", 127, "No such file or directory"),
        ("./plain", 126, "Permission denied"),
    ):
        done = conductor("exec", command, ":::", "1")
        assert done.returncode == 1
        assert f"job 1 exited with code {code}" in done.stderr
        assert f"{command}: {why}" in done.stderr


def test_further_attempts(conductor):
    script = 'echo x >> tries; test "$(wc -l < tries)" = 3 && echo "$0"'

    done = conductor("exec", "--retries", "2", "sh", "-c", script, ":::", "ok")
    assert (done.stdout, done.returncode) == ("ok\n", 0)
    (conductor.folder / "tries").unlink()
    done = conductor("exec", "--retries", "1", "sh", "-c", script, ":::", "ok")
    assert (done.stdout, done.returncode) == ("", 1)


def test_a_command_whose_worker_is_killed_is_run_again(conductor):
    script = 'test -e once || { touch once; kill -KILL $PPID; sleep 1000; }; echo "$0"'
    done = conductor("exec", "-v", "sh", "-c", script, ":::", "ok")

    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert "1 lost" in done.stderr
    assert not processes_of_this_test()


def test_commands_do_not_ignore_signals(conductor):
    lines = conductor.out("exec", "sh", "-c", "trap", ":::", "1")
    status = Path("/proc/self/status")

    assert lines == []
    if status.exists():
        (line,) = conductor.out("exec", "grep", "SigIgn", status, ":::", "-h")
        assert int(line.split()[1], 16) & (1 << (signal.SIGINT - 1)) == 0


def test_a_program_whose_name_has_a_space_is_no_line_for_a_shell(conductor):
    conductor.write("say it", "#!/bin/sh\necho it: $1\n").chmod(0o755)
    assert conductor.out("exec", "./say it", ":::", "a") == ["it: a"]


# Limits and ends


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(conductor):
    script = "echo begun; sleep 1000 & sleep 1000"
    done = conductor("exec", "--timeout", "1.5s", "--joblog", "log", "sh", "-c", script, ":::", "1")

    assert (done.returncode, done.stdout) == (1, "begun\n")
    assert "conductor: job 1 took longer than 1.5 s: sh -c" in done.stderr
    cells = (conductor.folder / "log").read_text().splitlines()[1].split("\t")
    assert (float(cells[3]), cells[6:8]) == (1.5, ["-1", "15"])
    assert not processes_of_this_test()


def test_a_command_may_clean_up_when_its_time_is_over(conductor):
    script = "trap 'echo cleaned; exit 0' TERM; echo begun; sleep 1000 & wait"
    done = conductor("exec", "--timeout", "1500ms", "sh", "-c", script, ":::", "1")

    assert (done.returncode, done.stdout) == (1, "begun\ncleaned\n")


def test_a_command_that_does_not_heed_sigterm_is_killed(conductor):
    done = conductor("exec", "--timeout", "0.3", "sh", "-c", "trap '' TERM; while :; do :; done", ":::", "1")  # fmt: skip  # noqa: E501

    assert done.returncode == 1
    assert "took longer" in done.stderr


def test_a_limit_that_follows_the_median(conductor):
    jobs = [*["0.05"] * 10, "1000", *["0.05"] * 3]
    done = conductor("exec", "-j1", "--timeout", "3000%", "sleep", ":::", *jobs)

    assert done.returncode == 1
    assert "14 jobs: 13 done, 1 failed" in done.stderr


def test_a_limit_that_follows_the_median_holds_for_what_is_being_executed(conductor):
    done = conductor("exec", "-j2", "--timeout", "2000%", "sleep", ":::", "1000", *["0.1"] * 5)

    assert done.returncode == 1
    assert re.search(r"job 1 took longer than 2\.\d+ s: sleep 1000", done.stderr)


def test_halting_soon_finishes_what_is_being_executed(conductor, tmp_path):
    for name in ("begun", "gate"):
        os.mkfifo(tmp_path / name)
    script = "case $0 in long) echo > begun; cat gate; echo long;; bad) cat begun; exit 1;; esac"
    process = conductor.start("exec", "-j2", "--halt", "soon,fail=1", "sh", "-c", script)
    process.stdin.write("long\nbad\n")
    process.stdin.flush()
    assert "job 2 exited with code 1" in process.stderr.readline()
    with (tmp_path / "gate").open("w"):  # standard input stays open: only the rule ends the run
        pass
    out, said = process.stdout.read(), process.stderr.read()
    process.communicate(timeout=DEADLINE)

    assert (process.returncode, out.split()) == (3, ["long"])
    assert "stopped early: " in said


def test_halting_now_ends_what_is_being_executed(conductor, tmp_path):
    os.mkfifo(tmp_path / "gate")
    script = "case $0 in long) echo > gate; sleep 1000;; bad) cat gate; exit 1;; esac"
    done = conductor(
        "exec", "-j2", "--halt", "now,fail=1", "sh", "-c", script, ":::", "long", "bad"
    )

    assert done.returncode == 3
    assert "1 cancelled" in done.stderr
    assert "conductor: job 1 was ended: sh -c" in done.stderr
    assert "stopped early: --halt now,fail=1" in done.stderr


def test_halting_at_the_first_success(conductor):
    done = conductor(
        "exec", "-j1", "-q", "--halt", "now,success=1", "sh", "-c", "exit $0", ":::", *"1101"
    )

    assert done.returncode == 0


def test_halting_at_a_share_of_failures(conductor):
    jobs = ["1"] * 3 + ["0"] * 97
    done = conductor("exec", "-j1", "--halt", "soon,fail=50%", "sh", "-c", "exit $0", ":::", *jobs)

    assert done.returncode == 3
    assert "3 failed" in done.stderr


def test_a_budget_of_failures(conductor):
    done = conductor(
        "exec", "-j1", "--max-failures", "1", "sh", "-c", "exit $0", ":::", *["1"] * 100
    )

    assert done.returncode == 3
    assert "stopped early: " in done.stderr
    assert " 100 failed" not in done.stderr


def test_a_reader_that_leaves_ends_the_run_quietly(conductor):
    words = shlex.join(conductor.argv("exec", "-j2", "echo", ":::"))
    script = f"{words} $(seq 2000) | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=conductor.env, capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["141"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_the_jobs_at_hand(conductor, tmp_path, number, code):
    os.mkfifo(tmp_path / "gate")
    process = conductor.start("exec", "-j1", "sh", "-c", "echo $0; cat gate", ":::", "a", "b")
    gate = os.open(tmp_path / "gate", os.O_WRONLY)  # returns when the job reads it
    process.send_signal(number)
    assert "finishing the jobs in execution" in process.stderr.readline()
    os.close(gate)
    out, said = process.communicate(timeout=DEADLINE)

    assert (process.returncode, out) == (code, "a\n")
    assert "1 job not started" in said


def test_the_second_signal_ends_the_jobs_at_hand(conductor, tmp_path):
    os.mkfifo(tmp_path / "gate")
    process = conductor.start("exec", "sh", "-c", "echo begun; cat gate; sleep 1000", ":::", "a")
    gate = os.open(tmp_path / "gate", os.O_WRONLY)
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=DEADLINE)
    os.close(gate)

    assert (process.returncode, out) == (130, "begun\n")
    assert "1 cancelled" in said
    assert not processes_of_this_test()


def test_the_commands_of_a_conductor_that_is_killed_end_with_it(conductor, tmp_path):
    os.mkfifo(tmp_path / "gate")
    process = conductor.start("exec", "-j1", "sh", "-c", "cat gate; sleep 1000", ":::", "a")
    gate = os.open(tmp_path / "gate", os.O_WRONLY)
    process.kill()
    process.communicate(timeout=DEADLINE)
    os.close(gate)  # `nothing_is_left` sees that the command is gone
    for folder in conductor.temporary.iterdir():  # nobody was left to remove it
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        folder.rmdir()


# What is kept


def columns(path):
    header, *lines = (line.split("\t") for line in path.read_text().splitlines())
    assert tuple(header) == COLUMNS
    return lines


def test_the_log_of_jobs_has_the_columns_of_parallel(conductor):
    conductor("exec", "-k", "--joblog", "log", "sh", "-c", "echo $0; exit $0", ":::", "0", "12")
    first, second = columns(conductor.folder / "log")

    assert first[:2] == ["1", ":"]
    assert [cell[4:8] for cell in (first, second)] == [["0", "2", "0", "0"], ["0", "3", "12", "0"]]
    assert float(first[2]) > 1e9
    assert 0 <= float(first[3]) < 60
    assert second[8] == "sh -c 'echo $0; exit $0' 12"


NOTE = ("sh", "-c", "echo $0 >> ran; test $0 != bad || test -e good")


def ran(conductor):
    path = conductor.folder / "ran"
    names = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def test_a_log_of_jobs_is_gone_on_with(conductor):
    conductor("exec", "--joblog", "log", *NOTE, ":::", "a", "bad", "c")
    assert ran(conductor) == ["a", "bad", "c"]

    conductor.out("exec", "--joblog", "log", "--resume", *NOTE, ":::", "a", "bad", "c", "d")
    assert ran(conductor) == ["d"]
    (conductor.folder / "good").touch()
    conductor.out("exec", "--joblog", "log", "--resume-failed", *NOTE, ":::", "a", "bad", "c", "d")
    assert ran(conductor) == ["bad"]
    conductor.out("exec", "--joblog", "log", "--resume-failed", *NOTE, ":::", "a", "bad", "c", "d")
    assert ran(conductor) == []
    assert sorted(line[0] for line in columns(conductor.folder / "log")) == list("12234")


def test_a_log_of_other_jobs_is_refused(conductor):
    conductor.out("exec", "--joblog", "log", *NOTE, ":::", "a", "b")
    answer = conductor.no("exec", "--joblog", "log", "--resume", *NOTE, ":::", "x", "b", code=4)

    assert "log: job 1 was " in answer
    assert "the input or the command has changed" in answer


def test_a_log_that_was_torn_is_gone_on_with(conductor):
    conductor.out("exec", "--joblog", "log", "-k", *NOTE, ":::", "a", "b")
    log = conductor.folder / "log"
    log.write_text(log.read_text()[:-5])
    ran(conductor)

    conductor.out("exec", "--joblog", "log", "--resume", *NOTE, ":::", "a", "b")
    assert ran(conductor) == ["b"]
    assert [line[0] for line in columns(log)] == ["1", "2"]


def test_a_file_that_is_no_log_is_refused(conductor):
    conductor.write("log", "something else\n")
    answer = conductor.no("exec", "--joblog", "log", "--resume", "true", ":::", "1", code=4)

    assert answer.endswith("log, line 1: no line of a --joblog")
    assert (conductor.folder / "log").read_text() == "something else\n"


def test_a_log_that_cannot_be_written(conductor):
    answer = conductor.no("exec", "--joblog", "no/log", "true", ":::", "1")

    assert answer.endswith("--joblog no/log: No such file or directory")


def test_results_are_kept_as_parallel_does(conductor):
    conductor("exec", "--results", "kept", "sh", "-c", "echo $0; echo e >&2", ":::", "a/b", "c\\d")
    folder = conductor.folder / "kept" / "1"

    for name, seq, text in (("a\\_b", "1", "a/b\n"), ("c\\\\d", "2", "c\\d\n")):
        assert (folder / name / "stdout").read_text() == text
        assert (folder / name / "stderr").read_text() == "e\n"
        assert (folder / name / "seq").read_text() == seq


def test_results_of_several_inputs_and_of_rows(conductor):
    conductor.out("exec", "--results", "kept", "true", ":::", "a", ":::", "1", "2")
    assert (conductor.folder / "kept/1/a/2/2/seq").read_text() == "2"
    conductor.write("in.csv", "name,n\nx,1\n")
    conductor.out("exec", "--results", "rows", "--jobs", "in.csv", "true", "{name}")
    assert (conductor.folder / "rows/name/x/n/1/stdout").read_text() == ""


def test_results_of_inputs_that_make_no_file_names(conductor):
    conductor.out("exec", "--results", "kept", "true", ":::", "x" * 300, "..", "")
    kept = conductor.folder / "kept"

    assert (kept / "seq/1/seq").exists()
    assert (kept / "1/\\../seq").read_text() == "2"
    assert (kept / "seq/3/seq").exists()


def test_the_report_as_json(conductor):
    done = conductor("exec", "--json", "--report", "report.json", "false", ":::", "1", "2")
    report = json.loads((conductor.folder / "report.json").read_text())

    assert done.returncode == 1
    assert report["states"] == {"done": 0, "failed": 2, "quarantined": 0, "cancelled": 0}
    assert json.loads(done.stderr.splitlines()[-1]) == report


def test_a_report_that_cannot_be_written_is_said(conductor):
    done = conductor("exec", "--report", "no/report", "true", ":::", "1")

    assert done.stderr == "conductor: --report no/report: No such file or directory\n"


def test_a_verbose_run_tells_of_its_workers(conductor):
    done = conductor("exec", "-v", "-j1", "true", ":::", "1")

    assert done.returncode == 0
    assert "1 job: 1 done" in done.stderr
    assert "worker 1 has started" in done.stderr
