"""Programs as forks: they are what ``python -P -m`` would have made of them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.experiments.program_server import Program, ProgramServer, _import_for
from pipelines.experiments.runner import PROGRAMS

TELLER = """
import json, os, signal, sys
handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
open_files = sorted(os.listdir("/proc/self/fd"))
print(json.dumps([__name__, sys.argv[1:], os.getcwd(), os.environ.get("MARK"), handlers, blocked, open_files]))
print(os.getpgid(0) == os.getpid(), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of modules that programs find."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "teller.py").write_text(TELLER)
    (tmp_path / "sleeper.py").write_text("import time\nprint('sleeps', flush=True)\ntime.sleep(600)")
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[ProgramServer]:
    with closing(ProgramServer()) as server:
        yield server


def start(server: ProgramServer, module: str, *arguments: str, out: Path, **options: bool) -> Program:
    with out.open("wb") as stdout, Path(f"{out}.err").open("wb") as stderr:
        return server.start(module, arguments, stdout=stdout.fileno(), stderr=stderr.fileno(), **options)


@pytest.mark.parametrize("new_session", [False, True])
def test_a_program_has_its_arguments_folder_environment_signals_and_files(
    server: ProgramServer, modules: Path, monkeypatch: pytest.MonkeyPatch, new_session: bool
) -> None:
    monkeypatch.setenv("MARK", "\udce9")
    monkeypatch.chdir(modules)
    long = "x" * 100_000
    program = start(server, "teller", "7", "ü \udcff", long, long, long, out=modules / "out", new_session=new_session)
    assert program.wait() == program.wait() == 7
    name, arguments, folder, mark, handlers, blocked, files = json.loads((modules / "out").read_text())
    assert (name, arguments, folder, mark) == (
        "__main__", ["7", "ü \udcff", long, long, long], str(modules), "\udce9"
    )  # fmt: skip
    assert "default_int_handler" in handlers[0] and handlers[1:] == [str(signal.SIG_DFL)] * 2
    assert (blocked, len(files)) == ([], 4), "three, and the one that lists them"
    assert (modules / "out.err").read_text() == f"{new_session}\n"


def test_programs_run_side_by_side_and_end_by_signals(server: ProgramServer, modules: Path) -> None:
    programs = [start(server, "sleeper", out=modules / f"out{number}") for number in range(3)]
    with pytest.raises(TimeoutError):
        programs[0].wait(0)
    # At once: also a program that has not yet begun hears a signal.
    for program, number in zip(programs, (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), strict=True):
        program.send_signal(number)
    assert [program.wait() for program in programs] == [-15, -9, -15]
    programs[0].send_signal(signal.SIGTERM)
    assert start(server, "no_such_module", out=modules / "out").wait() == 1
    assert "no_such_module" in (modules / "out.err").read_text()


def test_a_killed_server_is_replaced_and_its_programs_are_still_heard(modules: Path) -> None:
    with closing(ProgramServer()) as server:
        program = start(server, "sleeper", out=modules / "slept")
        server._process.kill()
        server._process.wait()
        assert start(server, "teller", "0", out=modules / "out").wait() == 0
    with pytest.raises(TimeoutError):
        program.wait(0)
    program.send_signal(signal.SIGTERM)
    assert program.wait() == -signal.SIGTERM


def test_a_program_that_nobody_hears_of_is_killed(server: ProgramServer, modules: Path) -> None:
    program = start(server, "sleeper", out=modules / "out")
    watcher = int(Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(watcher, signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    give_up_s = time.monotonic() + 30
    while Path(f"/proc/{program.pid}").exists():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


@pytest.mark.parametrize("module", PROGRAMS.values())
def test_what_a_command_imports_exists(module: str) -> None:
    _import_for(module)
