"""A run on a disk that becomes full, and the same on a larger one: ``python -m ... OUT COPY WORDS``.

OUT is a disk of this process alone. What was in it after each run is copied to COPY/0 and COPY/1, and the exit codes
are written to COPY/codes. Exit code 77 where no disk can be mounted.
"""

import shutil
import sys
from pathlib import Path

from pipelines.prep_cli import main
from tests.integration.limits import NotPermitted, mount_disk, own_mounts
from tests.map_children import keeping_the_map_child

SIZES = ("48k", "4m")


def run_on_disks(out: Path, copy: Path, words: list[str]) -> None:
    codes = []
    for number, size in enumerate(SIZES):
        mount_disk(out, size, again=number > 0)
        codes.append(main([*words, "--out", str(out)], prog_name="wsol-prep", standalone_mode=False) or 0)
        shutil.copytree(out, copy / str(number))
    (copy / "codes").write_text(" ".join(map(str, codes)))


if __name__ == "__main__":
    try:
        own_mounts()
    except NotPermitted as error:
        print(error, file=sys.stderr)
        sys.exit(77)
    with keeping_the_map_child():
        run_on_disks(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
