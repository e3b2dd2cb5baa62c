"""Turns requests on a pipe into maps on another: the loop of the process that does a worker's images and may die of it.

``supervision`` starts that process, names the images one after the other and watches it. Frames (``frames``) come in:

- ``{"configure": MapConfig as JSON, "root": str, "boundary_model": str or null}``
- ``{"make": number, "record": ImageRecord as JSON}``

and go out, in the order of the requests:

- ``{"ready": true}`` once everything is imported;
- ``{"made": number, "row": MapRow as JSON, "message": str}`` with the compressed map beside it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from pseudo_maps.processes import end_with_parent
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.frames import FrameBuffer, encode_frame, header_of
from pseudo_maps.shards import compress_map
from pseudo_maps.shards.layout import row_problem
from pseudo_maps.shards.outcomes import MadeMap

__all__ = ["serve"]

_READ_BYTES = 1 << 16
_OOM_SCORE = "500"
"""Of 1000: when the machine runs out of memory, the kernel ends this process rather than the one that watches it."""


def serve(make: Callable[..., MadeMap], *, read_configuration: Callable[[Mapping[str, Any]], Any]) -> None:
    """Make the maps that are asked for until there is nobody left to ask.

    Parameters
    ----------
    make
        Called with a record, ``root``, ``config`` and ``boundary_model``; never raises.
    read_configuration
        Turns the configuration as JSON into ``config``.
    """
    requests, results = _claim_pipes()
    # At once, also in the middle of a loop in compiled code.
    end_with_parent(int(sys.argv[1]))
    with suppress(OSError):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_SCORE)
    _send(results, encode_frame({"ready": True}))
    buffer = FrameBuffer()
    settings: dict[str, Any] = {}
    while data := os.read(requests, _READ_BYTES):
        buffer.feed(data)
        while (frame := buffer.next_frame()) is not None:
            header = frame[0]
            if "configure" in header:
                settings = {
                    "config": read_configuration(header["configure"]),
                    "root": header["root"],
                    "boundary_model": header["boundary_model"],
                }
                continue
            made = make(ImageRecord(**header["record"]), **settings)
            problem = row_problem(made.map_uint8, made.row)
            assert problem is None, problem
            head = {"made": header["make"], "row": header_of(made.row), "message": made.message}
            _send(results, encode_frame(head, compress_map(made.map_uint8)))


def _send(results: BinaryIO, frame: bytes) -> None:
    results.write(frame)
    results.flush()


def _claim_pipes() -> tuple[int, BinaryIO]:
    """Keep standard input and output for the frames; what a library prints goes to standard error."""
    requests, results = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, os.fdopen(results, "wb")
