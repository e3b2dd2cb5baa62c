import io
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import pipelines.cli.terminal as command_line
from pipelines.cli.terminal import CONTEXT_SETTINGS, CommandGroup, Progress, common_options, opencv_clash
from pseudo_maps import __version__
from tests.command_calls import REPOSITORY

ERRORS = {
    "value": ValueError("map size 0, expected 1"),
    "os": PermissionError(13, "Permission denied", "/maps"),
    "runtime": RuntimeError("a worker died"),
    "memory": MemoryError("a map of 10^16 pixels"),
    "wordless memory": MemoryError(),
    "bug": KeyError("a bug"),
    "interrupt": KeyboardInterrupt(),
    "exit": click.exceptions.Exit(5),
    "abort": click.exceptions.Abort(),
    "usage": click.UsageError("--jobs 0: expected 1"),
    "pipe": BrokenPipeError(32, "Broken pipe"),
}


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """A group as the project's commands are."""


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("how")
@click.option("--times", default=3, help="Not used.")
@common_options
def fail(how: str, times: int) -> None:
    """Fail in the given way."""
    if how in ERRORS:
        raise ERRORS[how]
    click.echo(f"done {times}")


def run(*words: str):
    return CliRunner().invoke(main, words, prog_name="wsol-test")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        *((how, str(ERRORS[how])) for how in ("value", "os", "runtime", "pipe")),
        ("memory", "out of memory: a map of 10^16 pixels"),
        ("wordless memory", "out of memory"),
    ],
    ids=str,
)
def test_failed_work_is_one_line_and_exit_1(how: str, reason: str) -> None:
    result = run("fail", how)
    assert (result.exit_code, result.output) == (1, f"wsol-test: error: {reason}\n")


@pytest.mark.parametrize(
    "words", [["--debug", "fail", "value"], ["fail", "--debug", "value"]], ids=["group", "command"]
)
def test_debug_shows_the_traceback_before_the_line(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert result.output.startswith("Traceback (most recent call last)")
    assert "raise ERRORS[how]" in result.output
    assert result.output.endswith(f"wsol-test: error: {ERRORS['value']}\n")

    # It is not remembered by the next call.
    assert "Traceback" not in run("fail", "value").output


def test_what_is_no_failed_work_is_not_dressed_up_as_it() -> None:
    for how, code in (("exit", 5), ("abort", 1), ("usage", 2)):
        result = run("fail", how)
        assert result.exit_code == code and "wsol-test: error" not in result.output
    result = run("fail", "interrupt")
    assert (result.exit_code, result.output) == (130, "\nwsol-test: stopped by SIGINT\n")
    assert isinstance(run("fail", "bug").exception, KeyError)


@pytest.mark.parametrize("words", [["fail"], ["fail", "x", "--no-such"], ["nothing"], ["fail", "x", "--times", "two"]])
def test_bad_usage_is_exit_2(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output and "Usage: wsol-test" in result.output


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["fail", "-h"], ["fail", "--help"]])
def test_help_has_a_short_form_and_shows_defaults(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 0 and result.output.startswith("Usage: wsol-test")
    assert ("[default: 3]" in result.output) == (words[0] == "fail")


@pytest.mark.parametrize(
    ("words", "output"), [("--version", __version__), ("fail --version", __version__), ("fail not", "done 3")]
)
def test_version_and_success_are_exit_0(words: str, output: str) -> None:
    result = run(*words.split())
    assert (result.exit_code, result.output) == (0, f"{output}\n")


@pytest.mark.parametrize(("words", "code"), [(["fail", "value"], 1), (["fail", "usage"], 2), (["nothing"], 2)])
def test_of_the_processes_of_torchrun_one_says_why_it_fails(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = []
    for rank in ("0", "1", "2"):
        # As torchrun names it; the folder above is that of one attempt on one machine.
        (tmp_path / "attempt_0" / rank).mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / rank / "error.json"))
        result = run(*words)
        assert result.exit_code == code
        said.append(bool(result.output))
    assert said == [True, False, False]


# --- signals


STOPPED = """
import os, signal, sys
import click
from pipelines.cli.terminal import CommandGroup, ending_on_signals
@click.group(cls=CommandGroup)
def main(): pass
@main.command()
@click.argument("number", type=int)
@click.option("--keeps-nothing", is_flag=True)
def work(number, keeps_nothing):
    with ending_on_signals(resumes=not keeps_nothing):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            print("cleaned up")
main(prog_name="wsol-test")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("words", [[], ["--keeps-nothing"]], ids=["keeps", "keeps-nothing"])
def test_both_signals_clean_up_and_say_the_same(number: signal.Signals, code: int, words: list[str]) -> None:
    command = [sys.executable, "-c", STOPPED, "work", str(int(number)), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    resumes = "" if words else "; the same command resumes"
    assert (done.returncode, done.stdout) == (code, "cleaned up\n"), done.stderr
    assert done.stderr == f"\nwsol-test: stopped by {number.name}{resumes}\n"


# --- several OpenCV packages over each other


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def test_two_opencv_packages_are_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for versions in ({}, {"opencv-contrib-python-headless": "4.9"}, {"opencv-python": "4.9"}):
        install(monkeypatch, versions)
        assert opencv_clash() is None
    install(monkeypatch, {"opencv-python": "4.10", "opencv-contrib-python-headless": "4.9"})
    found = opencv_clash()
    assert found is not None
    assert "opencv-python 4.10" in found and "opencv-contrib-python-headless 4.9" in found
    assert "install opencv-contrib-python-headless alone" in found


# --- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(command_line.time, "monotonic", clock)
    return clock


def test_a_file_gets_a_line_every_half_minute_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(100, label="val") as progress:
        for _ in range(10):
            clock.now += 8
            progress.advance(10, failed=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "val: 40/100 images, 1.2/s, 0m48s left, 4 failed",
        "val: 80/100 images, 1.2/s, 0m16s left, 8 failed",
        "val: 100/100 images, 1.2/s, 0m00s left, 10 failed",
    ]


def test_what_was_done_earlier_does_not_count_for_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1000, label="val") as progress:
        progress.advance(900, earlier=True)
        clock.now += 50
        progress.advance(50)
    assert capsys.readouterr().err == "val: 950/1000 images, 1.0/s, 0m50s left\n"


def test_a_bar_shows_the_rate_of_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    with Progress(1000, label="val") as progress:
        progress.advance(900, earlier=True)
        progress.advance(50)
        assert (progress._bar.n, progress._bar.initial) == (950, 900)


def test_long_runs_tell_the_time_left_in_hours_and_empty_ones_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(1_281_167, label="train", unit="map") as progress, Progress(0, label="val"):
        clock.now += 100
        progress.advance(1000)
    assert capsys.readouterr() == ("", "train: 1000/1281167 maps, 10.0/s, 35h33m left\n")


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(4, label="val") as progress:
        progress.advance(4, failed=1)
    shown = terminal.getvalue()
    assert re.search(r"val: 100%.*4/4", shown) and "failed=1" in shown
    assert "left" not in shown


PRINTER = """
import os, sys, tempfile
import click
from pipelines.cli.terminal import Progress, SingleCommand

@click.command(cls=SingleCommand)
def main():
    with open("result", "w") as file, Progress(3, label="images") as progress:
        assert file.fileno() > 2
        for _ in range(3):
            click.echo("x" * 5000)
            progress.say("x" * 5000)
            progress.advance(1)
        file.write("done")

main()
"""


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("2>/dev/full", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>&1 | true", 0),
        (">/dev/full", 1),
    ],
)
def test_output_that_cannot_be_written_does_not_end_the_work(shell: str, code: int, tmp_path: Path) -> None:
    command = f'set -o pipefail; "{sys.executable}" -c "$PRINTER" {shell}'
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PRINTER": PRINTER, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (ended.returncode, (tmp_path / "result").read_text()) == (code, "done")
    lost = "Error: standard output lacks something: No space left on device; all other work is done\n"
    assert ended.stderr.endswith(lost) == bool(code)
