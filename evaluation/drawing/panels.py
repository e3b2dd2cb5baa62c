"""Pictures of a few images of an evaluation, each beside every localizer's map and box.

``panels/examples.png`` shows all of them; ``panels/examples.json`` holds each picture on its own, so that a report can
put the same image of several evaluations side by side. The images are spread evenly over the data set and never chosen
by how well they went.

Legend: H W pixels, B ground-truth boxes. Boxes are ``x0, y0, x1, y1``, inclusive, in pixels of the 224 x 224 frame that
image and maps are squeezed to.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import NO_BOX
from evaluation.drawing.overlays import (
    PREDICTED_RGB,
    Picture,
    draw_boxes,
    draw_ground_truth,
    overlay_heat,
    picture_bytes,
    resized,
    save_picture,
)
from evaluation.drawing.picture_grid import picture_grid
from evaluation.image_scores import NOT_TO_DECODE, ImageScores, Pair, is_skipped
from evaluation.images import EvaluationImage, EvaluationSet
from evaluation.metrics.baselines import centred_gaussian_map
from evaluation.protocols import get_protocol, protocol_title
from evaluation.schema import write_json
from evaluation.scoring import ImageMaps
from pseudo_maps.images import ImageDecodeError, decode_image

PANELS_FILE = "panels/examples.png"
"""Inside a folder of results; the single pictures stand beside it, under the ending ``.json``."""

_BASELINE = "centred-gaussian"
_NO_MAP_GREY = 200


class CaptionedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of the frame with its caption."""

    caption: str
    """Of an image its class and id; of a prediction its overlap, or why there is none."""
    jpeg: bytes


class PanelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One image and its predictions."""

    image: CaptionedPicture
    """With its ground truth."""
    predictions: tuple[CaptionedPicture, ...]
    """One for each column."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A predictor."""

    localizer: str
    is_baseline: bool
    """Whether it never looks at the image."""


class Panels(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="wsol-panels-2"):
    """The content of ``panels/examples.json``; pictures are base64 there."""

    protocol: str
    """The protocol that the boxes belong to."""
    columns: tuple[Column, ...]
    rows: tuple[PanelRow, ...]

    def __post_init__(self) -> None:
        if any(len(row.predictions) != len(self.columns) for row in self.rows):
            raise ValueError(f"Expected {len(self.columns)} predictions in each row")


def panel_indexes(images: Sequence[EvaluationImage], *, count: int) -> list[int]:
    """Indexes of up to ``count`` images, evenly spread; only of those with boxes, where there are any."""
    listed = [image for image in images if not image.blacklisted]
    usable = [image.index for image in listed if len(image.boxes_xyxy)] or [image.index for image in listed]
    if not usable or count < 1:
        return []
    return [usable[position] for position in np.unique(np.linspace(0, len(usable) - 1, count).astype(int))]


def draw_panels(
    path: Path,
    scored: Sequence[ImageScores],
    evaluation_set: EvaluationSet,
    *,
    maps_of: Callable[[EvaluationImage], ImageMaps],
    localizers: Sequence[str],
    protocol: str,
    levels: Mapping[Pair, int],
) -> None:
    """Write the picture and the file of single pictures beside it; images that cannot be read are left out.

    ``scored`` are the results of the images shown; ``maps_of`` computes or reads the maps of one image again. The boxes
    are those of ``protocol``, which must show the whole image, at its ``levels``. Images without ground truth are shown
    without the baseline.
    """
    has_truth = any(scores.ground_truth for scores in scored)
    shown = (_BASELINE, *localizers) if has_truth else tuple(localizers)
    pictures: list[list[tuple[Picture, str]]] = []
    for scores in scored:
        image = evaluation_set.images[scores.index]
        left_out = is_skipped(scores.status) or (_BASELINE, protocol) not in scores.iou
        if scores.status in NOT_TO_DECODE or (left_out if has_truth else not scores.boxes):
            continue
        try:
            decoded = decode_image(evaluation_set.root / image.record.path).rgb_hwc
        except (ImageDecodeError, OSError):
            continue
        image_rgb = resized(decoded, width=FRAME_PX, height=FRAME_PX)
        maps = {_BASELINE: centred_gaussian_map(), **maps_of(image).whole}
        truth_b4 = scores.ground_truth.get(protocol, ())
        caption = f"{image.record.class_name(evaluation_set.class_words)} {image.record.image_id}".strip()
        row = [(draw_ground_truth(image_rgb, truth_b4), caption)]
        for localizer in shown:
            pair = (localizer, protocol)
            if pair not in scores.boxes or localizer not in maps:
                grey = np.full_like(image_rgb, _NO_MAP_GREY)
                row.append((draw_ground_truth(grey, truth_b4), scores.status))
                continue
            map_hw = resized(get_protocol(protocol).grey_levels(maps[localizer]), width=FRAME_PX, height=FRAME_PX)
            picture = draw_ground_truth(overlay_heat(image_rgb, map_hw), truth_b4)
            box = scores.boxes[pair][levels[pair]]
            if tuple(box) == NO_BOX:
                row.append((picture, "no box"))
            else:
                picture = draw_boxes(picture, box, colour=PREDICTED_RGB)
                row.append((picture, f"IoU {scores.iou[pair][levels[pair]]:.2f}" if has_truth else "predicted box"))
        pictures.append(row)
    if pictures:
        headings = [
            "image and ground truth" if has_truth else "image",
            *(f"{localizer}, {protocol_title(protocol)}" for localizer in shown),
        ]
        save_picture(path, picture_grid(headings, pictures))
        captioned = [
            [CaptionedPicture(caption=caption, jpeg=picture_bytes(picture, suffix=".jpg")) for picture, caption in row]
            for row in pictures
        ]
        panels = Panels(
            protocol=protocol,
            columns=tuple(Column(localizer=name, is_baseline=name == _BASELINE) for name in shown),
            rows=tuple(PanelRow(image=row[0], predictions=tuple(row[1:])) for row in captioned),
        )
        write_json(path.with_suffix(".json"), panels)


def read_panels(path: Path) -> Panels | None:
    """The content of ``panels/examples.json``, None without such a file; ValueError for a damaged or foreign one."""
    if not path.is_file():
        return None
    try:
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), Panels)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the pictures of an evaluation by this version, found: {error}; remove the file to "
            "report without them, or evaluate again into another folder"
        ) from error
