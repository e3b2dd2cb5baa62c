"""Compiled kernels on disk: found by everybody, checked, healed, and usable where nothing can be written."""

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pseudo_maps.kernels import kernel_folders, telling_of_compilation
from tests.integration.limits import bound_by_permissions

CALLED = """
from pseudo_maps.kernels import kernel

FACTOR = 2

@kernel
def double(value):
    return FACTOR * value
"""
CALLING = """
from called import double
from pseudo_maps.kernels import kernel

@kernel
def quadruple(value):
    return double(double(value))
"""
PROGRAM = """
from calling import quadruple
from pseudo_maps.kernels import telling_of_compilation

with telling_of_compilation(lambda: print("told")):
    print(quadruple(3), quadruple(4))
print(quadruple(5.0))
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in (("called", CALLED), ("calling", CALLING), ("program", PROGRAM)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand for the folder of the installation and for the user's."""
    found = [tmp_path / "shared", tmp_path / "own"]
    monkeypatch.setattr("pseudo_maps.kernels.kernel_folders", lambda: found)
    return found


def quadrupled(sources: Path, value: float = 3) -> tuple[float, bool]:
    """What the kernel gives in a process that has not used it, and whether it was compiled for that."""
    modules = {}
    for name in ("called", "calling"):
        spec = importlib.util.spec_from_file_location(name, sources / f"{name}.py")
        assert spec is not None and spec.loader is not None
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    told: list[bool] = []
    try:
        with telling_of_compilation(lambda: told.append(True)):
            return modules["calling"].quadruple(value), bool(told)
    finally:
        for name in modules:
            del sys.modules[name]


def test_compilation_is_told_once_and_not_at_all_from_the_cache(sources: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for told in ("told\n", ""):
        done = subprocess.run(
            [sys.executable, sources / "program.py"], env=environment, capture_output=True, text=True, timeout=300
        )
        assert (done.stdout, done.returncode) == (f"{told}12 16\n20.0\n", 0), done.stderr


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
}


def test_a_damaged_file_is_compiled_again(sources: Path, folders: list[Path]) -> None:
    assert quadrupled(sources) == (12, True)
    assert quadrupled(sources) == (12, False)
    whole = {path: path.read_bytes() for path in folders[0].iterdir()}
    for damage in DAMAGE.values():
        for path, content in whole.items():
            path.write_bytes(damage(content))
        assert quadrupled(sources) == (12, True)
        assert quadrupled(sources) == (12, False)
    assert sorted(folders[0].iterdir()) == sorted(whole)


def test_kernels_of_an_administrator_serve_everybody(sources: Path, folders: list[Path]) -> None:
    quadrupled(sources)
    folders[0].chmod(0o555)
    with bound_by_permissions():
        assert quadrupled(sources) == (12, False)
        assert not folders[1].exists()
        # Of another type, which is not there yet.
        assert quadrupled(sources, 3.0) == (12.0, True)
        assert quadrupled(sources, 3.0) == (12.0, False)
    assert stat.S_IMODE(folders[1].stat().st_mode) == 0o700


def test_without_any_folder_it_works_too(sources: Path, folders: list[Path], tmp_path: Path) -> None:
    folders[1].mkdir(mode=0o777)
    folders[1].chmod(0o777)
    folders[0].mkdir(mode=0o555)
    with bound_by_permissions():
        for _ in range(2):
            assert quadrupled(sources) == (12, True)
    assert list(folders[1].iterdir()) == [], "everybody can write there, so that nothing in it is to be run"


def test_a_changed_number_of_a_kernel_that_is_called_is_noticed(sources: Path, folders: list[Path]) -> None:
    assert quadrupled(sources) == (12, True)
    # Of another length, because Python notices no other change within a second.
    (sources / "called.py").write_text(CALLED.replace("FACTOR = 2", "FACTOR = 2 + 1"))
    assert quadrupled(sources) == (27, True)


def test_code_that_was_imported_before_its_file_changed_is_not_kept_for_the_new_file(
    sources: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("called", sources / "called.py")
    assert spec is not None and spec.loader is not None
    old = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(old)
    (sources / "called.py").write_text(CALLED.replace("FACTOR * value", "FACTOR * value + 100"))
    assert old.double(3) == 6
    assert quadrupled(sources) == (312, True)


def test_the_folders_are_the_installation_s_the_user_s_and_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setattr("tempfile.tempdir", "/scratch")
    installed, *others = kernel_folders()
    assert installed == Path(sys.modules["pseudo_maps.kernels"].__file__ or "").with_name("__pycache__")
    assert others == [Path("/caches/saliency-aware-wsol"), Path(f"/scratch/saliency-aware-wsol-{os.getuid()}")]
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/chosen")
    assert kernel_folders() == [Path("/chosen")]
