"""Child process that makes maps, one image after the other: ``python -m pseudo_maps.runs.child_program``.

``child.MapChild`` starts it, sends requests over a socket and watches it. A request is JSON: the settings,
``{"map_config": MapConfig as JSON, "root": str, "boundary_model": str or null}``, or the fields of an ``ImageRecord``.
Once everything is imported the child sends an empty message. It then answers each image, in the order of the requests,
with JSON, ``{"row": fields of the MapRow, "message": str}``, a newline, and the compressed map.
"""

import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pseudo_maps.processes import end_with_parent
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import compress_map
from pseudo_maps.shards.layout import row_problem
from pseudo_maps.shards.outcomes import MadeMap

MapMaker = tuple[Callable[..., MadeMap], Callable[[Mapping[str, Any]], Any]]
"""A function of a record, ``root``, ``config`` and ``boundary_model`` that never raises; the reader of ``config``."""

_OOM_SCORE = "500"
"""Of 1000: when the machine runs out of memory, the kernel ends this process rather than the one that watches it."""


def serve(load: Callable[[], MapMaker]) -> None:
    """Answer requests until the parent closes the connection; ``load`` imports what makes the maps."""
    # The parent hears these and ends the child: Ctrl-C and a scheduler's SIGTERM reach every process of a job.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    requests_fd, lifeline_fd = map(int, sys.argv[1:])
    end_with_parent(lifeline_fd)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    connection = Connection(requests_fd)
    make, read_configuration = load()
    connection.send_bytes(b"")
    settings: dict[str, Any] = {}
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        if "map_config" in request:
            settings = {
                "config": read_configuration(request["map_config"]),
                "root": request["root"],
                "boundary_model": request["boundary_model"],
            }
            continue
        made = make(ImageRecord(**request), **settings)
        problem = row_problem(made.map_uint8, made.row)
        assert problem is None, problem
        head = json.dumps({"row": asdict(made.row), "message": made.message}, allow_nan=False)
        connection.send_bytes(head.encode() + b"\n" + compress_map(made.map_uint8))


def _load() -> MapMaker:
    from pseudo_maps.config import MapConfig
    from pseudo_maps.map_making import make_map
    from pseudo_maps.processes import prepare_worker_process

    prepare_worker_process()
    return make_map, MapConfig.from_json


if __name__ == "__main__":
    serve(_load)
