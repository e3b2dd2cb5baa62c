"""Turns a data root on disk, in any of four layouts, into image records, classes and ground-truth boxes."""

from pipelines.datasets.box_files import load_boxes
from pipelines.datasets.boxes import BoxAnnotation, scale_boxes
from pipelines.datasets.layouts import LAYOUTS, open_dataset
from pipelines.datasets.model import SPLITS, Dataset, DatasetError

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "BoxAnnotation",
    "Dataset",
    "DatasetError",
    "load_boxes",
    "open_dataset",
    "scale_boxes",
]
