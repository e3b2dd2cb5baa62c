"""Pictures of single saliency maps: image, map, overlay and boxes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from evaluation.boxes.fixed_thresholds import CAM_FRACTION
from evaluation.drawing.overlays import (
    PREDICTED_RGB,
    Picture,
    draw_boxes,
    draw_ground_truth,
    heat_colours,
    overlay_heat,
    resized,
)
from evaluation.protocols import get_protocol
from pipelines.datasets import BoxAnnotation, DatasetError, load_boxes, open_dataset, scale_boxes
from pseudo_maps.images import ImageDecodeError, decode_image
from pseudo_maps.shards import STATUS_OK, STATUSES_OF_LOST_PROCESSES, MapIndex
from pseudo_maps.shards.sources import check_sources

_RULE = get_protocol("cam")


class MapGallery:
    """Pictures of the maps of a split in a folder of shards, which may be incomplete, and of their images in ``data``.

    The red box is that of the protocol ``cam`` at ``threshold``, a fraction of the peak, at least 0 and below 1.
    DatasetError when no image of the data has a map, ShardError when there is no shard, one cannot be read, or images
    have been replaced.
    """

    def __init__(
        self, folder: Path, *, data: Path, split: str, layout: str = "auto", threshold: float = CAM_FRACTION
    ) -> None:
        self._folder, self._data, self._threshold = folder, data, threshold
        self._dataset = open_dataset(data, split=split, layout=layout)
        self.index = MapIndex(folder, split, allow_incomplete=True)
        """The maps."""
        self._by_id = {record.image_id: record for record in self._dataset.records if record.image_id in self.index}
        if not self._by_id:
            raise DatasetError(f"no image of split {split} in {data} has a map in {folder}")
        for warning in check_sources(self.index, list(self._by_id.values()), root=self._dataset.root):
            click.echo(f"warning: {warning}", err=True)

    def __contains__(self, image_id: object) -> bool:
        """Whether an image has both a map and a place in the data."""
        return image_id in self._by_id

    @property
    def ids(self) -> list[str]:
        """Ids of all images that have a map, in the order of the data."""
        return list(self._by_id)

    def class_name(self, image_id: str) -> str:
        """The human-readable name of an image's class; empty where it is unknown."""
        return self._by_id[image_id].class_name(self._dataset.class_words)

    def listed(self, arguments: Sequence[str]) -> list[str]:
        """Image ids of arguments that are each an id or several separated by commas; DatasetError for an unknown id."""
        ids = []
        for argument in arguments:
            # An id of a plain image folder may itself hold a comma.
            parts = [argument] if argument in self else [part.strip() for part in argument.split(",") if part.strip()]
            for image_id in parts:
                if image_id not in self:
                    raise DatasetError(
                        f"{image_id!r} has no map in {self._folder} or no image in {self._data}; "
                        f"expected an id such as {next(iter(self._by_id))!r}"
                    )
            ids += parts
        return list(dict.fromkeys(ids))

    def pictures(
        self, image_ids: Sequence[str], *, square: bool, longest_px: int
    ) -> Iterator[tuple[str, dict[str, Picture | None], float | None]]:
        """Of each id ``image``, ``map``, ``overlay`` and ``box``, each ``(H, W, 3)`` uint8 RGB of one size, and an IoU.

        The box picture is the image with ground truth (green) and the map's own box (red). None stands for what is
        missing because the image cannot be read or has no map. ``square`` squeezes the image as the map shows it. The
        IoU is the protocol's, the best with any ground-truth box; None without map or ground truth.
        """
        try:
            boxes = load_boxes(self._dataset, image_ids=image_ids)
        except DatasetError as error:
            # A table of another program may have the name of a file of boxes; maps can be looked at without it.
            click.echo(f"warning: no ground truth is drawn: {error}", err=True)
            boxes = {}
        for image_id in image_ids:
            truth = boxes.get(image_id)
            pictures = self._pictures(image_id, truth, square=square, longest_px=longest_px)
            yield image_id, pictures, None if truth is None else self._overlap(image_id, truth)

    def _overlap(self, image_id: str, truth: BoxAnnotation) -> float | None:
        row = self.index.row(image_id)
        width, height = truth.frame_wh or (row.width, row.height)
        if row.status != STATUS_OK:
            return None
        own_b4 = scale_boxes(truth, width=width, height=height, file_width=width, file_height=height)
        if not len(own_b4):
            return None
        candidates = _RULE.candidates(self.index.read_uint8(image_id), fraction=self._threshold)
        iou_l, _ = _RULE.overlaps(candidates, _RULE.ground_truth(own_b4, image_wh=(width, height)))
        return float(iou_l[0])

    def _pictures(
        self, image_id: str, truth: BoxAnnotation | None, *, square: bool, longest_px: int
    ) -> dict[str, Picture | None]:
        row = self.index.row(image_id)
        image: Picture | None = None
        if row.status not in STATUSES_OF_LOST_PROCESSES:
            with suppress(ImageDecodeError, OSError):
                image = decode_image(self._dataset.root / self._by_id[image_id].path, enough_px=longest_px).rgb_hwc
        width, height = longest_px, longest_px
        if not square:
            file_height, file_width = (row.height, row.width) if image is None else image.shape[:2]
            if min(file_height, file_width) > 0:
                scale = longest_px / max(file_height, file_width)
                width, height = max(1, round(file_width * scale)), max(1, round(file_height * scale))
        shown: dict[str, Picture | None] = dict.fromkeys(("image", "map", "overlay", "box"))
        if image is not None:
            shown["image"] = shown["box"] = image = resized(image, width=width, height=height)
        if row.status != STATUS_OK:
            return shown
        map_hw = resized(self.index.read_uint8(image_id), width=width, height=height)
        shown["map"] = heat_colours(map_hw)
        if image is not None:
            shown["overlay"] = overlay_heat(image, map_hw)
            if truth is not None:
                boxes_n4 = scale_boxes(truth, width=width, height=height, file_width=row.width, file_height=row.height)
                image = draw_ground_truth(image, boxes_n4)
            own_4 = _RULE.box_in_image(map_hw, image_wh=(width, height), threshold=self._threshold)
            shown["box"] = image if own_4 is None else draw_boxes(image, own_4, colour=PREDICTED_RGB)
        return shown
