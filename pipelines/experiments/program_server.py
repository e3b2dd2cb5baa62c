"""Server that forks programs from one process, which has already imported what they need.

Importing PyTorch takes a core 2 to 4 seconds, and a table of experiments is dozens of programs. ``ProgramServer``
starts the server, ``python -P -m pipelines.experiments.program_server FD``. A request is a datagram with open files:
the request as JSON, the connection for its answers, standard output, standard error and, where the program is to end
with its parent, the reading end of a pipe. The answers are the process id and, at the end, the exit code.
"""

import atexit
import io
import json
import multiprocessing.process
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pseudo_maps.processes import end_with_parent

_ANSWER_BYTES = 64
_MOST_FILES = 5
_TO_EVERY_PROCESS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that terminals and schedulers send to whole groups of processes: for the programs, not for their server."""


class Program:
    """A program that was started: its process id, and its exit code (negative: a signal) once that is known."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        answer = answers.recv(_ANSWER_BYTES)
        if not answer:
            raise ChildProcessError("cannot start a program: no memory for another process, or its server was killed")
        self.pid = int(answer)
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def wait(self, timeout_s: float | None = None) -> int:
        """Exit code at the end of the program; TimeoutError."""
        with self._lock:
            if self.returncode is None:
                if not select.select([self._answers], [], [], timeout_s)[0]:
                    raise TimeoutError
                answer = self._answers.recv(_ANSWER_BYTES)
                if not answer:
                    # Its watcher was killed, and nobody would hear of the end of the program.
                    self.send_signal(signal.SIGKILL)
                self.returncode = int(answer or -signal.SIGKILL)
                self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal the program, if it has not ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ProgramServer:
    """Starts programs, also from several threads; its process starts with the first one and ends with this process."""

    def __init__(self) -> None:
        self._requests: socket.socket | None = None
        self._lock = threading.Lock()

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        stdout: int,
        stderr: int,
        lifeline: int | None = None,
        new_session: bool = False,
    ) -> Program:
        """Run a module as ``python -P -m MODULE ARGUMENTS`` would, with the working folder and environment of now.

        ``stdout`` and ``stderr`` are open files. With ``lifeline``, as ``end_with_parent`` takes it, the program gets
        SIGTERM when this process ends. ``new_session``: in a process group of its own. ChildProcessError when it
        cannot start.
        """
        request = {
            "module": module,
            "arguments": list(arguments),
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "new_session": new_session,
        }
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A file, because a datagram has a largest size. ASCII keeps file names that are no UTF-8.
        with theirs, os.fdopen(os.memfd_create("request"), "w+b") as file:
            file.write(json.dumps(request).encode("ascii"))
            file.seek(0)
            files = [file.fileno(), theirs.fileno(), stdout, stderr, *([] if lifeline is None else [lifeline])]
            with self._lock:
                try:
                    self._send(files)
                except ConnectionError:
                    # Somebody has killed the server.
                    self.close()
                    self._send(files)
        return Program(answers)

    def close(self) -> None:
        """End the server; what still runs goes on."""
        if self._requests is not None:
            self._process.kill()
            self._process.wait()
            self._requests.close()
            self._requests = None

    def _send(self, files: list[int]) -> None:
        if self._requests is None:
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-P", "-m", "pipelines.experiments.program_server", str(theirs.fileno())]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))
        socket.send_fds(self._requests, [b"start"], files)


SERVER = ProgramServer()
"""The one of this process."""
atexit.register(SERVER.close)


def _serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork programs until the parent closes ``requests``; return in the programs, with request and files."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _TO_EVERY_PROCESS)
    while True:
        message, files, _, _ = socket.recv_fds(requests, _ANSWER_BYTES, _MOST_FILES)
        if not message:
            sys.exit()
        with os.fdopen(files.pop(0), "rb") as file:
            request = json.load(file)
        # What cannot be imported will fail again in the program, with its message.
        with suppress(Exception):
            _import_for(request["module"])
        with socket.socket(fileno=files.pop(0)) as answers:
            if os.fork() == 0:
                requests.close()
                program = os.fork()
                if program == 0:
                    answers.close()
                    return request, files
                _watch(program, answers, files)
        for number in files:
            os.close(number)
        # Watchers that have ended.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(program: int, answers: socket.socket, files: Sequence[int]) -> NoReturn:
    """Tell the process id and the exit code of a program, of which its parent process alone hears."""
    for number in files:
        os.close(number)
    with suppress(ConnectionError):
        answers.send(str(program).encode())
        answers.send(str(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])).encode())
    os._exit(0)


def _import_for(module: str) -> None:
    """Import what a command imports once it runs."""
    if module == "pipelines.prep_cli":
        from pseudo_maps.runs import generation  # noqa: F401
    elif module == "pipelines.train_cli":
        # Every optimiser imports it, which takes 2 seconds.
        import torch._dynamo  # noqa: F401

        from pipelines.jobs import training  # noqa: F401
    elif module == "pipelines.eval_cli":
        from pipelines.jobs import evaluation, network_maps  # noqa: F401


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Give this fork the folder, environment, arguments, files and signals of the program."""
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    # Where its own worker processes resolve relative paths.
    multiprocessing.process.ORIGINAL_DIR = request["folder"]  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(request["environment"])
    for folder in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    for number, target in zip(files, (1, 2), strict=False):
        os.dup2(number, target)
        os.close(number)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    if len(files) > 2:
        end_with_parent(files[2], by=signal.SIGTERM)
    with suppress(OSError):
        # What ps and top show.
        Path("/proc/self/comm").write_text(request["module"].rpartition(".")[2])
    sys.argv[1:] = request["arguments"]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_EVERY_PROCESS)


def _run(module: str) -> int:
    """Run a module as ``python -m`` would; its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as the interpreter would, but for taking all modules apart: a fork would copy 300 MB for it, in 2 seconds."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _request, _files = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(_request, _files)
    _end(_run(_request["module"]))
