"""Checks that boxes and maps belong to the image files: more mismatches than single mistakes are refused.

Boxes are ``x0, y0, x1, y1``, 0-based inclusive pixels of the frame that the annotation states.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.boxes.geometry import same_shape
from evaluation.images import EvaluationSet
from evaluation.maps import LOOKED_AT_MAPS, FileMaps, StoredMaps
from evaluation.masks import mask_files
from pipelines.datasets import BoxAnnotation, Dataset, DatasetError
from pipelines.datasets.boxes import count_beyond
from pipelines.datasets.text import describe
from pseudo_maps.files import evenly_spaced
from pseudo_maps.images import read_image_size
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards.sources import COMPARED_FILES, is_beyond_chance
from pseudo_maps.wording import counted

MIN_TELLING_BOXES = 10
"""Boxes needed to tell corners from sizes. Of ILSVRC's 80,477 val boxes, 22 % would also fit into their image as
``x, y, width, height``: of ten boxes all do once in four million times."""
NAMED_IMAGES = 3

Size = tuple[int, int]
"""Width and height in pixels."""


def check_boxes(
    dataset: Dataset, records: Sequence[ImageRecord], annotations: Mapping[str, BoxAnnotation]
) -> list[str]:
    """Compare boxes with their classes, their frames and the headers of image files; give warnings, a sentence each.

    ``annotations`` holds, by image id, boxes of ``records`` as ``load_boxes`` gives them. Files that are missing or
    unreadable are not compared. DatasetError where more images than chance explains have boxes of other classes alone,
    boxes beyond the image, corners out of order, or a frame of another shape than the file; and where every box may be
    ``x, y, width, height`` or shares of the sides.
    """
    annotated = {record.image_id: annotations[record.image_id] for record in records if record.image_id in annotations}
    files = {
        record.image_id: read_image_size(dataset.root / record.path)
        for record in evenly_spaced(records, most=COMPARED_FILES)
    }
    compared = {image_id: size for image_id, size in files.items() if size is not None and image_id in annotated}
    shapes, squares = _other_shapes(annotated, compared)
    sizes = {
        image_id: size for image_id, found in annotated.items() if (size := found.frame_wh or compared.get(image_id))
    }
    found = [
        *_left_out(annotated),
        _judge(
            dataset.root,
            {
                image_id: f"all {counted(one.other_class, 'box', plural='boxes')} left out"
                for image_id, one in annotated.items()
                if one.other_class and not len(one.boxes_xyxy)
            },
            of=len(annotated),
            what="only boxes of another class than the image's",
            advice="check that classes and boxes are of the same images",
        ),
        _judge(
            dataset.root,
            shapes,
            of=len(compared),
            what="boxes drawn on another aspect ratio than that of the image file",
            advice="correct the sizes that the annotations state, or restore the image files",
        ),
        _judge(
            dataset.root,
            _beyond(annotated, sizes),
            of=len(sizes),
            what="boxes beyond the image",
            advice="check the sizes that the annotations state, and that the boxes are not of a larger version",
        ),
        _judge(
            dataset.root,
            {
                image_id: f"{counted(one.swapped, 'box', plural='boxes')} with x1 < x0 or y1 < y0"
                for image_id, one in annotated.items()
                if one.swapped
            },
            of=len(annotated),
            what="corners out of order, which were put in order",
            advice="write boxes as x0, y0, x1, y1; a centre or a size in the place of a corner looks like this",
        ),
    ]
    if differing := {image_id: "the XML file counts" for image_id, one in annotated.items() if one.contradicted}:
        found.append(_named(differing, of=len(annotated), what="boxes in LOC_val_solution.csv and in XML differ"))
    if squares:
        found.append(f"{_named(squares, of=len(compared), what='square files, boxes of another aspect ratio')}; ")
        found[-1] += "right if the files were squeezed, wrong if they were cropped"
    _refuse_other_units(dataset, annotated, sizes)
    return [warning for warning in found if warning]


def _named(faults: Mapping[str, str], *, of: int, what: str) -> str:
    first, *others = faults
    names = ", ".join(repr(name) for name in others[: NAMED_IMAGES - 1])
    more = f" (also {names}{', ...' if len(faults) > NAMED_IMAGES else ''})" if names else ""
    return f"{what}: {len(faults)} of {counted(of, 'image')} compared, such as {first!r}: {faults[first]}{more}"


def _judge(source: Path, faults: Mapping[str, str], *, of: int, what: str, advice: str) -> str:
    """A warning, or nothing to warn of; DatasetError where chance does not explain so many faults."""
    if not faults:
        return ""
    text = _named(faults, of=of, what=what)
    if is_beyond_chance(len(faults), of=of):
        raise DatasetError(f"{source}: {text}; {advice}")
    return text


def _left_out(annotated: Mapping[str, BoxAnnotation]) -> list[str]:
    boxes = sum(one.other_class for one in annotated.values())
    images = sum(one.other_class > 0 for one in annotated.values())
    where = f"in {counted(images, 'image')}, because they are of another class than the image"
    return [f"{counted(boxes, 'box', plural='boxes')} left out {where}"] if boxes else []


def _beyond(annotated: Mapping[str, BoxAnnotation], sizes: Mapping[str, Size]) -> dict[str, str]:
    faults = {}
    for image_id, size in sizes.items():
        one = annotated[image_id]
        # Boxes whose annotation states a frame have been clipped and counted.
        number = one.beyond or count_beyond(one.boxes_xyxy, frame_wh=size)
        if number:
            faults[image_id] = f"{counted(number, 'box', plural='boxes')} beyond {size[0]} x {size[1]} pixels"
    return faults


def _other_shapes(
    annotated: Mapping[str, BoxAnnotation], compared: Mapping[str, Size]
) -> tuple[dict[str, str], dict[str, str]]:
    """Both sizes in words where frame and file differ in shape; those of square files apart."""
    shapes: dict[str, str] = {}
    squares: dict[str, str] = {}
    for image_id, (width, height) in compared.items():
        frame = annotated[image_id].frame_wh
        if frame is None or same_shape(frame, (width, height)):
            continue
        text = f"drawn on {frame[0]} x {frame[1]} pixels, the file has {width} x {height}"
        if same_shape(frame[::-1], (width, height)):
            text += ", width and height exchanged"
        (squares if width == height else shapes)[image_id] = text
    return shapes, squares


def _refuse_other_units(dataset: Dataset, annotated: Mapping[str, BoxAnnotation], sizes: Mapping[str, Size]) -> None:
    """DatasetError where every box lies within 0 to 1, or fits as ``x, y, width, height``: corners rarely do."""
    fits: dict[tuple[float, ...], bool] = {}
    first = share = None
    are_shares = True
    for image_id, (width, height) in sizes.items():
        for box in annotated[image_id].boxes_xyxy.tolist():
            share = share or f"{box} of {image_id!r} in {width} x {height} pixels"
            are_shares &= max(box) <= 1
            # From the first pixel on, a size is a corner.
            if max(box[:2]) > 1:
                fitting = box[0] + box[2] <= width and box[1] + box[3] <= height
                fits[tuple(box)] = fitting and fits.get(tuple(box), True)
                first = first or f"{box} of {image_id!r} in {width} x {height} pixels"
    if share and are_shares:
        raise DatasetError(
            f"{dataset.root}: expected corners in pixels, found every box within 0 to 1, such as {share}: shares "
            "of the sides look like this; multiply them by width and height"
        )
    if len(fits) >= MIN_TELLING_BOXES and all(fits.values()):
        raise DatasetError(
            f"{dataset.root}: expected corners x0, y0, x1, y1, found boxes that look like x, y, width, height or "
            f"like those of a smaller version, such as {first}; write them as corners"
        )


def check_map_shapes(source: StoredMaps, folder: Path, records: Sequence[ImageRecord], *, root: Path) -> list[str]:
    """Warnings of map files of another aspect ratio than their image, by ``LOOKED_AT_MAPS`` evenly spaced ones.

    DatasetError for more than single mistakes.
    """
    if not isinstance(source, FileMaps):
        return []
    found = {
        record.image_id: (read_image_size(root / record.path), source.size_of(record))
        for record in evenly_spaced(records, most=LOOKED_AT_MAPS)
    }
    return _other_ratios(folder, found, what="maps")


def check_mask_shapes(evaluation_set: EvaluationSet, folder: Path) -> list[str]:
    """Warnings of masks of another aspect ratio than their image, by ``COMPARED_FILES`` headers; errors as for maps."""
    root, images = evaluation_set.root, evenly_spaced(evaluation_set.images, most=COMPARED_FILES)
    found = {
        image.record.image_id: (
            read_image_size(root / image.record.path),
            read_image_size(folder / mask_files(image)[0]),
        )
        for image in images
    }
    return _other_ratios(folder, found, what="masks")


def _other_ratios(folder: Path, found: Mapping[str, tuple[Size | None, Size | None]], *, what: str) -> list[str]:
    """Compare the sizes of image and map or mask, by image id.

    Square ones fit every image, and so do those that all have one other size where the images differ in theirs: the
    images were squeezed to it.
    """
    compared = {image_id: (one, other) for image_id, (one, other) in found.items() if one and other}
    if len({other for _, other in compared.values()}) == 1 < len({one for one, _ in compared.values()}):
        return []
    faults = {
        image_id: f"{height} rows and {width} columns, the image has {image_wh[1]} and {image_wh[0]}"
        + (", transposed" if same_shape((height, width), image_wh) else "")
        for image_id, (image_wh, (width, height)) in compared.items()
        if width != height and not same_shape((width, height), image_wh)
    }
    advice = f"give {what} of the whole image, with the rows first, without the EXIF rotation"
    what = f"{what} of another aspect ratio than the image"
    warning = _judge(folder, faults, of=len(compared), what=what, advice=advice)
    return [warning] if warning else []


def check_map_names(
    source: StoredMaps,
    folder: Path,
    *,
    wanted: Sequence[ImageRecord],
    known: Sequence[ImageRecord],
    without: str = "counts as wrong",
) -> list[str]:
    """Warnings of maps without an image among all that are ``known``, and of ``wanted`` images without a map.

    ``without`` says what becomes of the latter. ValueError where no map belongs to any wanted image, or one to two.
    """
    unused, lacking = source.unused(known), source.lacking(wanted)
    there = len(wanted) - len(lacking)
    notes = []
    if unused:
        named = ", ".join(unused[:NAMED_IMAGES]) + (", ..." if len(unused) > NAMED_IMAGES else "")
        notes.append(f"{counted(len(unused), 'map')} in {folder} without an image of the data set: {named}")
    if unused and not there:
        raise ValueError(
            f"{folder}: no map fits any of {counted(len(wanted), 'image')}: map ids are like {describe(unused[0])}, "
            f"image ids like {describe(wanted[0].image_id)}; give the --data and --layout that the maps were made with"
        )
    if lacking and there:
        # As wsol-prep --limit leaves them.
        advice = f"; --limit {there} takes those that have one" if not source.lacking(wanted[:there]) else ""
        images = counted(len(wanted), "image")
        notes.append(f"{folder} has maps of {there} of {images}; an image without one {without}{advice}")
    return notes
