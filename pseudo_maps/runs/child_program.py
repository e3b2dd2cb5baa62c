"""Supervised child process that makes maps: ``python -m pseudo_maps.runs.child_program``."""

from pseudo_maps.config import MapConfig
from pseudo_maps.map_making import make_map
from pseudo_maps.processes import prepare_worker_process
from pseudo_maps.runs.serving import serve

__all__: list[str] = []

if __name__ == "__main__":
    prepare_worker_process()
    serve(make_map, read_configuration=MapConfig.from_json)
