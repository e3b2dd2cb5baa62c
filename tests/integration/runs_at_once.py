"""Runs into several folders, each at the same moment as another process: ``python -m ... NAME MAP_SIZE FOLDER WORDS``.

In each folder of FOLDER the run is into ``m``, and its exit code is written to ``NAME``. Those that are called other-*
get a map size of their own.
"""

import sys
import time
from pathlib import Path

from pipelines.prep_cli import main
from tests.map_children import keeping_the_map_child


def run_in_turn(name: str, map_size: str, folder: Path, words: list[str]) -> None:
    for here in sorted(folder.iterdir()):
        (here / name).touch()
        while len(list(here.glob("run-*"))) < 2:
            time.sleep(0.0005)
        more = ["--map-size", map_size] if here.name.startswith("other") else []
        code = main([*words, "--out", str(here / "m"), *more], prog_name="wsol-prep", standalone_mode=False)
        (here / name).write_text(f"exit {code or 0}")


if __name__ == "__main__":
    with keeping_the_map_child():
        run_in_turn(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
