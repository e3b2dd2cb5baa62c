import os
import subprocess
import sys
from pathlib import Path

MODULE = """
from pseudo_maps.kernels import kernel, telling_of_compilation

@kernel
def double(value):
    return 2 * value

@kernel
def quadruple(value):
    return double(double(value))

with telling_of_compilation(lambda: print("told")):
    print(quadruple(3), quadruple(4))
print(quadruple(5.0))
"""


def test_compilation_is_told_once_and_not_at_all_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for told in ("told\n", ""):
        done = subprocess.run(
            [sys.executable, tmp_path / "module.py"], env=environment, capture_output=True, text=True, timeout=300
        )
        assert (done.stdout, done.returncode) == (f"{told}12 16\n20.0\n", 0), done.stderr
