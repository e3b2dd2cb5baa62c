import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments.runner import PROGRAMS, StepFailed, StepRunner, run_chain, run_side_by_side
from pipelines.experiments.steps import Chain, FileSet, Step, StepRecord
from pseudo_maps.files import FolderBusy, folder_lock
from tests.pipelines.table_runs import data_identity


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_runs_as_a_step(program: str, tmp_path: Path) -> None:
    with StepRunner() as runner:
        runner.run(program, ["-h"], log=tmp_path / "logs" / "help.txt")
        runner.run(program, ["--version"], log=tmp_path / "logs" / "help.txt")
    text = (tmp_path / "logs" / "help.txt").read_text()
    assert text.startswith(f"$ {program} -h\nUsage: {program} ") and f"\n$ {program} --version\n" in text


def test_a_failure_has_the_message_of_the_log_or_says_where_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with StepRunner(debug=True) as runner, pytest.raises(StepFailed) as caught:
        runner.run("wsol-prep", ["verify", tmp_path / "nothing"], log=log)
    assert "nothing" in str(caught.value)
    assert f"$ wsol-prep verify {tmp_path / 'nothing'}\n" in log.read_text()
    with (
        StepRunner() as runner,
        pytest.raises(StepFailed, match=r"^wsol-prep failed .* above$"),
    ):
        runner.run("wsol-prep", ["verify", tmp_path / "nothing"])


def test_a_folder_named_like_a_package_does_not_become_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    with StepRunner() as runner:
        runner.run("wsol-prep", ["--version"], log=tmp_path / "log.txt")


SLEEPER = """
import signal, sys, time
from pathlib import Path
if sys.argv[1] == "die":
    signal.raise_signal(signal.SIGKILL)
signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1]).write_text("ended"), sys.exit(143)))
Path(sys.argv[1]).write_text("runs")
time.sleep(60)
"""
PARENT = """
import sys, threading
import pipelines.experiments.runner as steps
from pathlib import Path
steps.PROGRAMS = {"sleeper": "sleeper"}
sys.path.insert(0, sys.argv[1])
with steps.StepRunner() as runner:
    jobs = [threading.Thread(target=runner.run, args=("sleeper", [name])) for name in sys.argv[3:]]
    for job in jobs:
        job.start()
    runner.run("sleeper", [sys.argv[2]])
"""


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def test_a_killed_program_is_told_apart(sleeper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.experiments.runner.PROGRAMS", {"sleeper": "sleeper"})
    told = r"sleeper was ended by SIGKILL \(out of memory\?\)"
    with StepRunner() as runner, pytest.raises(StepFailed, match=told):
        runner.run("sleeper", ["die"])


@pytest.mark.parametrize(
    ("how", "code"),
    [("sys.exit(143)", 143), ("sys.exit(130)", 130), ("signal.raise_signal(signal.SIGTERM)", 143)],
)
def test_a_program_that_was_stopped_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, code: int
) -> None:
    (tmp_path / "stopped.py").write_text(f"import signal, sys\n{how}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("pipelines.experiments.runner.PROGRAMS", {"stopped": "stopped"})
    with StepRunner() as runner, pytest.raises(SystemExit) as caught:
        runner.run("stopped", [])
    assert caught.value.code == code
    assert capsys.readouterr().err == "stopped was stopped; the same command resumes\n"


def test_sigterm_reaches_every_program_and_ends_with_143(sleeper: Path) -> None:
    marks = [sleeper / name for name in ("first", "second", "third")]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(sleeper), *map(str, marks)], stderr=subprocess.PIPE, text=True
    )
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGTERM)
    _, said = parent.communicate(timeout=30)
    assert parent.returncode == 143, said
    assert [mark.read_text() for mark in marks] == ["ended"] * 3
    assert said.startswith("stopped by SIGTERM; the same command resumes, as soon as what runs has ended")


def test_programs_end_in_their_own_way_when_the_parent_is_killed(sleeper: Path) -> None:
    """SIGKILL lets the parent tell nobody; programs of its threads are no exception."""
    marks = [sleeper / name for name in ("first", "second", "third")]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(sleeper), *map(str, marks)])
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    give_up_s = time.monotonic() + 30
    while [mark.read_text() for mark in marks] != ["ended"] * 3:
        assert time.monotonic() < give_up_s, [mark.read_text() for mark in marks]
        time.sleep(0.01)


def test_what_still_runs_is_ended_when_another_step_fails(sleeper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.experiments.runner.PROGRAMS", {"sleeper": "sleeper"})
    mark = sleeper / "mark"

    def run_until_ended() -> None:
        with pytest.raises(SystemExit):
            runner.run("sleeper", [mark])

    with pytest.raises(StepFailed, match="SIGKILL"), StepRunner() as runner:
        thread = threading.Thread(target=run_until_ended)
        thread.start()
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.01)
        runner.run("sleeper", ["die"])
    # At once: the runner itself has waited for it.
    assert mark.read_text() == "ended"
    thread.join(timeout=10)


# --- chains


def make(folder: Path, name: str, *, text: str = "made") -> Step:
    """A step that writes ``text`` to a file; a text of "fail" ends it with an error."""
    return Step(
        name=f"making of {name}",
        stage="training",
        program="maker",
        arguments=(str(folder / name), text),
        makes=FileSet(path=folder / name),
        log=folder / f"{name}.log",
    )


MAKER = """
import sys
if sys.argv[2] == "fail":
    sys.exit("Error: no luck")
open(sys.argv[1], "w").write(sys.argv[2])
"""


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "maker.py").write_text(MAKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("pipelines.experiments.runner.PROGRAMS", {"maker": "maker"})
    return tmp_path


def chain(folder: Path, name: str, *steps: Step) -> Chain:
    return Chain(name=name, steps=steps, record=StepRecord(folder / f"{name}.json"))


def test_a_chain_keeps_what_is_finished_and_resumes_where_it_failed(
    maker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, first = data_identity(maker), make(maker, "a")
    with StepRunner() as runner:
        with pytest.raises(StepFailed, match=r"^making of b: no luck$") as caught:
            run_chain(chain(maker, "all", first, make(maker, "b", text="fail")), runner=runner, data=data)
        assert caught.value.reason == "no luck"
        assert StepRecord(maker / "all.json").failure("making of b") == "no luck"
        capsys.readouterr()
        whole = chain(maker, "all", first, make(maker, "b"))
        run_chain(whole, runner=runner, data=data)
        shown = capsys.readouterr().out
        assert "[1/2] making of a: finished before, kept\n[2/2] making of b\n$ maker " in shown
        assert whole.is_finished(data) and (maker / "b").read_text() == "made"


def test_a_chain_runs_once_at_a_time(maker: Path) -> None:
    data, step = data_identity(maker), make(maker, "a")
    whole, other = chain(maker, "all", step), chain(maker, "other", make(maker, "b"))
    busy = f"^{maker}: process .* at work in this folder"
    with folder_lock(maker, ".all.json.lock", wait_s=0, warn=pytest.fail), StepRunner() as runner:
        with pytest.raises(FolderBusy, match=busy):
            run_chain(whole, runner=runner, data=data)
        (failure,) = run_side_by_side(
            [whole, other], devices=["cpu"], data=data, debug=False, ended=lambda: None
        ).items()
        assert failure[0] == "all" and re.search(busy, failure[1])
    assert (maker / "b").exists() and not (maker / "a").exists()
    with StepRunner() as runner:
        run_chain(whole, runner=runner, data=data)
        # What is finished is only read.
        with folder_lock(maker, ".all.json.lock", wait_s=0, warn=pytest.fail):
            run_chain(whole, runner=runner, data=data)


def test_a_step_that_retries_failed_images_is_never_kept(maker: Path) -> None:
    step = make(maker, "a")
    retries = replace(step, arguments=(*step.arguments, "--retry-failed"))
    for _ in range(2):
        with StepRunner() as runner:
            run_chain(chain(maker, "all", retries), runner=runner, data=data_identity(maker))
    assert (maker / "a.log").read_text().count("$ maker ") == 2


def test_one_chain_that_fails_stops_no_other(maker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chains = [
        chain(maker, name, make(maker, name, text="fail" if name == "bad" else "made")) for name in ("bad", "x", "y")
    ]
    ended = []
    failures = run_side_by_side(
        chains, devices=("cpu", "cpu"), data=data_identity(maker), debug=False, ended=lambda: ended.append(1)
    )
    assert failures == {"bad": "no luck"} and len(ended) == 3
    assert (maker / "x").exists() and (maker / "y").exists()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("$ maker ") for line in lines) == 3
    assert sum(line.startswith("bad: failed: no luck (") for line in lines) == 1
    assert sum(line.startswith(("x: finished (", "y: finished (")) for line in lines) == 2
