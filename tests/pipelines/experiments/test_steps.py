import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.experiments.steps import PROGRAMS, StepFailed, StepRunner, command_line


def test_the_line_shown_is_the_line_that_can_be_typed() -> None:
    assert command_line("wsol-prep", ["verify", Path("a b"), 3]) == "wsol-prep verify 'a b' 3"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_runs_as_a_step(program: str, tmp_path: Path) -> None:
    with StepRunner() as runner:
        runner.run(program, ["-h"], log=tmp_path / "logs" / "help.txt")
        runner.run(program, ["--version"], log=tmp_path / "logs" / "help.txt")
    text = (tmp_path / "logs" / "help.txt").read_text()
    assert text.startswith(f"$ {program} -h\nUsage: {program} ") and f"\n$ {program} --version\n" in text


def test_a_failure_names_program_exit_code_and_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with StepRunner(debug=True) as runner, pytest.raises(StepFailed) as caught:
        runner.run("wsol-prep", ["verify", tmp_path / "nothing"], log=log)
    assert str(caught.value) == f"wsol-prep failed with exit code 2; see {log}" and caught.value.exit_code == 2
    assert "nothing" in log.read_text()


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
import pipelines.experiments.steps as steps
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
    monkeypatch.setattr("pipelines.experiments.steps.PROGRAMS", {"sleeper": "sleeper"})
    with StepRunner() as runner, pytest.raises(StepFailed, match=r"sleeper was ended by SIGKILL \(out of memory\?\)"):
        runner.run("sleeper", ["die"])


@pytest.mark.parametrize(
    ("how", "code"),
    [("sys.exit(143)", 143), ("sys.exit(130)", 130), ("signal.raise_signal(signal.SIGTERM)", 143)],
)
def test_a_program_that_was_told_to_stop_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, code: int
) -> None:
    (tmp_path / "stopped.py").write_text(f"import signal, sys\n{how}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("pipelines.experiments.steps.PROGRAMS", {"stopped": "stopped"})
    with StepRunner() as runner, pytest.raises(SystemExit) as caught:
        runner.run("stopped", [])
    assert caught.value.code == code
    assert capsys.readouterr().err == "stopped was told to stop; the same command goes on\n"


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
    assert said.startswith("stopped by SIGTERM; the same command goes on, as soon as what runs has ended")


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
    monkeypatch.setattr("pipelines.experiments.steps.PROGRAMS", {"sleeper": "sleeper"})
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
    thread.join(timeout=10)
    assert mark.read_text() == "ended"
