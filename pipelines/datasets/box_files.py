"""Turns the annotation files of a data set into ground-truth boxes for each of its images."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pipelines.datasets.annotation_xml import read_annotation_xml
from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.clsloc import find_tree, xml_stems
from pipelines.datasets.model import Dataset, DatasetError
from pipelines.datasets.solution_csv import read_solution_csv
from pipelines.datasets.text import describe
from pipelines.datasets.wsoleval import load_wsoleval_boxes

__all__ = ["load_boxes"]


def load_boxes(dataset: Dataset, *, image_ids: Iterable[str] | None = None) -> dict[str, BoxAnnotation]:
    """Ground-truth boxes by image id; images without annotation are absent.

    CLS-LOC boxes come from the split's XML files when it has an annotation folder (they state the frame size
    too), else from ``LOC_<split>_solution.csv``, which states none. In train, 544,546 of 1,281,167 images are
    annotated. An annotation counts for the image it is filed under, whatever its ``<name>`` and
    ``<filename>`` say. Plain image folders have no boxes.

    Parameters
    ----------
    dataset
        An open data set.
    image_ids
        The images wanted, in any order; None for all.

    Returns
    -------
    dict
        In the order of the records. Boxes are 0-based inclusive pixels of the annotation's own frame; see
        ``scale_boxes``. An image whose boxes were all dropped is present with an array of shape (0, 4).

    Raises
    ------
    DatasetError
        An id that is not in the data set, or an annotation file that does not read.
    """
    wanted = [record.image_id for record in dataset.records]
    if image_ids is not None:
        chosen = set(image_ids)
        unknown = chosen.difference(wanted)
        if unknown:
            raise DatasetError(
                f"{dataset.root}: expected ids of split {dataset.split!r}, found {len(unknown)} others, "
                f"such as {describe(min(unknown))}"
            )
        wanted = [image_id for image_id in wanted if image_id in chosen]
    if dataset.layout == "clsloc":
        return _clsloc_boxes(dataset, wanted=wanted)
    if dataset.layout == "wsoleval":
        return load_wsoleval_boxes(dataset, wanted=wanted)
    return {}


def _clsloc_boxes(dataset: Dataset, *, wanted: Sequence[str]) -> dict[str, BoxAnnotation]:
    tree = find_tree(dataset.root)
    if tree is None:
        raise DatasetError(f"{dataset.root}: the CLS-LOC tree is gone; restore it")
    boxes: dict[str, BoxAnnotation] = {}
    annotations = tree.folder("Annotations", dataset.split)
    if annotations.is_dir():
        # One scan a folder instead of 736,621 failing opens.
        stems: dict[str, dict[str, str]] = {}
        for image_id in wanted:
            below = PurePosixPath(image_id).parent.as_posix()
            if below not in stems:
                stems[below] = xml_stems(annotations / below)
            name = stems[below].get(image_id.rpartition("/")[2])
            if name is not None:
                annotation = read_annotation_xml(annotations / below / name)
                boxes[image_id] = tidy_boxes(
                    annotation.corners,
                    frame_width=annotation.frame_width,
                    frame_height=annotation.frame_height,
                )
        return boxes
    solution = tree.solution(dataset.split)
    if solution.is_file():
        rows = read_solution_csv(solution, split=dataset.split)
        for image_id in wanted:
            if image_id in rows:
                corners = rows[image_id].corners
                boxes[image_id] = tidy_boxes(corners, frame_width=None, frame_height=None)
    return boxes
