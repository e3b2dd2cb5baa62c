"""Data sets on disk, in one of several layouts: image records, classes and ground-truth boxes."""

from pipelines.datasets.boxes import BoxAnnotation, scale_boxes
from pipelines.datasets.layouts import LAYOUT_NAMES, load_boxes, load_masks, open_dataset
from pipelines.datasets.model import SPLITS, Dataset, DatasetError

__all__ = [
    "LAYOUT_NAMES",
    "SPLITS",
    "BoxAnnotation",
    "Dataset",
    "DatasetError",
    "load_boxes",
    "load_masks",
    "open_dataset",
    "scale_boxes",
]
