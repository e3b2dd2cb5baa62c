"""A process for the images in which some images are fatal: the first part of the file's name says how.

Good images get a map of their own without any proposals, so that the process starts in a tenth of a second.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child_program import serve
from pseudo_maps.shards.outcomes import MadeMap, row_of

SLOW_S = 0.005
"""Long enough for a kill to find most of these images at work."""
POLL_S = 0.002
HOG_BYTES = 2 << 30
"""No more, should a busy machine let it take more than the limit."""


def make(record: ImageRecord, *, root: str, config: dict, boundary_model: str | None) -> MadeMap:
    name = Path(record.path).name
    fault = name.split("-")[0]
    once = Path(root, f"{name}.done")
    if fault == "segfault":
        ctypes.string_at(0)
    elif fault == "exit":
        os._exit(7)
    elif fault == "hang":
        # For ``fault_runs.leaping_clock``.
        with suppress(OSError):
            Path(root, f"{name}.{os.getpid()}.hangs").touch()
        time.sleep(3600)
    elif fault == "hog":
        kept = []
        while sum(part.nbytes for part in kept) < HOG_BYTES:
            kept.append(np.ones(1 << 22))
        time.sleep(3600)
    elif fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "thrice" and (tries := len(list(Path(root).glob(f"{name}.*")))) < 3:
        Path(root, f"{name}.{tries}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "counted":
        Path(root, f"{name}.{len(list(Path(root).glob(f'{name}.*')))}").touch()
        os.abort()
    elif fault == "slow":
        time.sleep(SLOW_S)
        while is_held(root):
            time.sleep(POLL_S)
        with open(f"{root}.made", "ab", buffering=0) as made:
            made.write(b".")
    elif fault == "once" and not once.exists():
        once.touch()
        os.abort()
    elif fault == "garbage":
        Connection(int(sys.argv[1])).send_bytes(b"what is no answer")
        time.sleep(3600)
    elif fault == "noise":
        os.write(1, b"what a library prints\n")
    size = config["map_size"]
    seed = sum(os.fsencode(name))
    map_uint8 = np.random.default_rng(seed).integers(0, 256, size=(size, size), dtype=np.uint8)
    map_uint8[0, 0] = 255
    row = row_of(record, height=4, width=5, peak=0.1 + seed / 7, proposals=seed, status="ok")
    return MadeMap(map_uint8=map_uint8, row=row, message="")


def is_held(root: str) -> bool:
    """Whether a test lets no more images be made (``fault_runs.hold_at``)."""
    try:
        return os.stat(f"{root}.made").st_size >= int(Path(f"{root}.hold").read_text())
    except OSError:
        return False


if __name__ == "__main__":
    serve(lambda: (make, dict))
