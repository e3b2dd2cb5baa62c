"""Turns image files into saliency maps for the process that started it: ``python -m pseudo_maps.map_child``."""

from pseudo_maps.map_config import MapConfig
from pseudo_maps.map_making import make_map
from pseudo_maps.serving import serve
from pseudo_maps.worker_process import prepare_worker_process

__all__: list[str] = []

if __name__ == "__main__":
    prepare_worker_process()
    serve(make_map, read_configuration=MapConfig.from_json)
