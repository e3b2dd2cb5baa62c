"""A trained network as a function from images to class, box and heat map, for Python and for ``wsol-eval predict``.

Shapes: H W pixels of an image, h w rows and columns of a score map, B images of a batch. Boxes are ``x0, y0, x1, y1``,
0-based inclusive pixels of the image as stored; EXIF rotation is not applied.
"""

import difflib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.drawing.overlays import PREDICTED_RGB, Picture, draw_boxes, overlay_heat
from evaluation.drawing.picture_grid import with_title
from evaluation.image_scores import TOP_CLASSES
from evaluation.protocols import get_protocol
from pipelines.jobs.network_maps import usable_devices
from pseudo_maps.images import ImageDecodeError, decode_image
from pseudo_maps.reading import raise_system_error
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord
from training.class_names import NO_NAMES, ClassNames, check_class_names
from training.inference.images import EvaluationPixels, build_evaluation_loader, squashed
from training.inference.localizers import NetworkLocalizer, load_for_inference

_SIDE_PER_LINE = 150
"""Pixels of an image's shorter side for each pixel of a line's width."""

FileName = str | os.PathLike[str]


class ClassScore(NamedTuple):
    """One class of a prediction."""

    label: int
    """Class index of the network."""
    name: str
    """Human-readable name; empty where the checkpoint has none."""
    probability: float
    """Softmax of the class scores."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """What a network says of one image."""

    image: Path | Picture
    """The file, or the pixels (H, W, 3) uint8 RGB that were given."""
    width: int
    height: int
    """Pixels of the image."""
    classes: tuple[ClassScore, ...]
    """The five best classes, best first."""
    localized: ClassScore
    """Class that map and box belong to: the best one unless another was asked for."""
    box_xyxy: tuple[float, float, float, float] | None
    """Pixels of the image; None where the protocol finds no box."""
    map_hw: npt.NDArray[np.float32]
    """(h, w) score map of the whole image as the network gives it, of any range."""

    @property
    def localized_label(self) -> int:
        """Index of the class that map and box belong to."""
        return self.localized.label

    @property
    def label(self) -> int:
        """Index of the best class."""
        return self.classes[0].label

    @property
    def name(self) -> str:
        """Name of the best class; its index as text where the checkpoint has no names."""
        return self.classes[0].name or str(self.label)

    @property
    def score(self) -> float:
        """Probability of the best class."""
        return self.classes[0].probability

    @property
    def heat_hw(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 heat map at the size of the image: the score map's minimum is 0, its maximum 255."""
        size = (self.width, self.height)
        return np.asarray(cv2.resize(normalise_score_map(self.map_hw), size, interpolation=cv2.INTER_LINEAR))

    def draw(self) -> Picture:
        """The image (H, W, 3) uint8 RGB with heat map, box, and name and score of the localized class.

        An image file is read again, errors as ``Localizer``.
        """
        rgb_hwc = self.image if isinstance(self.image, np.ndarray) else decode_image(self.image).rgb_hwc
        boxes_n4 = np.array([] if self.box_xyxy is None else [self.box_xyxy])
        thick_px = max(2, min(self.width, self.height) // _SIDE_PER_LINE)
        shown = draw_boxes(overlay_heat(rgb_hwc, self.heat_hw), boxes_n4, colour=PREDICTED_RGB, width_px=thick_px)
        one = self.localized
        return with_title(shown, f"{one.name or one.label} {one.probability:.2f}")

    def __repr__(self) -> str:
        shown = f"{self.image}: " if isinstance(self.image, Path) else ""
        box = "no box" if self.box_xyxy is None else "box " + ", ".join(f"{side:.1f}" for side in self.box_xyxy)
        return f"<{shown}{self.name} ({self.score:.2f}), {box} of {self.width}x{self.height} pixels>"


class Localizer:
    """A trained network that classifies and localizes images.

    Parameters
    ----------
    network
        Folder of a run of ``wsol-train``, a checkpoint, or ``timm:NAME[@FILE]``.
    localizer
        Map that the box is taken from, a name of ``training.inference.config.LOCALIZERS``.
    protocol
        Rule from map to box: ``cam``, ``cam-release`` or ``ts-cam``, with ``threshold`` also ``wsoleval-v1``.
    threshold
        Share of the map's maximum, ``0 <= t < 1``, that pixels of the object exceed; None: the protocol's own.
    device
        ``auto`` (the first GPU, else the CPU), ``cpu`` or ``cuda:N``.
    class_names
        File with one class name per line, in label order; None: the names in the checkpoint.

    Raises
    ------
    CheckpointError
        Nothing is there, or nothing that reads.
    ValueError
        A localizer or device that is not there, a threshold that the protocol does not take, or names that do not fit
        the network.
    """

    def __init__(
        self,
        network: FileName,
        *,
        localizer: str = "cam",
        protocol: str = "cam",
        threshold: float | None = None,
        device: str = "auto",
        class_names: FileName | None = None,
    ) -> None:
        self._box = functools.partial(get_protocol(protocol).box_in_image, threshold=threshold)
        # Refuses a threshold before any image is looked at.
        self._box(np.zeros((1, 1)), image_wh=(1, 1))
        self.model = load_for_inference(network, device=usable_devices(device)[0])
        self.names: Sequence[str] = (
            self.model.class_names
            if class_names is None
            else read_class_names(Path(class_names), classes=self.model.classes, trained=self.model.names)
        )
        """Name of every class in label order; empty where they are unknown."""
        self.localizer, self.protocol, self.threshold = localizer, protocol, threshold
        self._look = NetworkLocalizer(self.model, localizers=[localizer])

    def __repr__(self) -> str:
        model = self.model
        return (
            f"Localizer({str(model.source)!r}: {model.arch}, {model.classes} classes, localizer {self.localizer}, "
            f"protocol {self.protocol}, on {model.device})"
        )

    def __call__(self, image: FileName | Image.Image | Picture, *, label: int | None = None) -> Prediction:
        """Predict one image: a file, a Pillow image, or pixels (H, W, 3) uint8 RGB.

        ``label`` is the class to localize, None the predicted one. ImageDecodeError, which names the file, when it
        cannot be read; ValueError for another array, a label that the network has not, or scores that are not finite.
        """
        if isinstance(image, str | os.PathLike):
            return next(self.many([image], label=label))
        if isinstance(image, Image.Image) and image.mode.startswith(("I", "F")):
            raise ValueError(f"expected a picture of 8 bits, found mode {image.mode}; give the file instead")
        # A copy: what is resized has to be writable, and the caller may go on to change the array.
        rgb_hwc = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if rgb_hwc.ndim != 3 or rgb_hwc.shape[2] != 3 or rgb_hwc.dtype != np.uint8 or not rgb_hwc.size:
            raise ValueError(f"expected an RGB array (H, W, 3) of uint8, found {rgb_hwc.shape} of {rgb_hwc.dtype}")
        pixels_1chw = squashed(rgb_hwc, side_px=self._look.image_side_px)
        height, width = rgb_hwc.shape[:2]
        return _raised(self._predict(pixels_1chw, [rgb_hwc], [(width, height)], label)[0])

    def many(
        self, files: Iterable[FileName], *, label: int | None = None, batch_size: int = 16, workers: int = 0
    ) -> Iterator[Prediction]:
        """Predict image files in their order, a batch at a time; ``workers`` processes decode, 0: this one.

        Errors as ``__call__``, at the first image that has one; ``try_many`` goes on.
        """
        yield from map(_raised, self.try_many(files, label=label, batch_size=batch_size, workers=workers))

    def try_many(
        self, files: Iterable[FileName], *, label: int | None = None, batch_size: int = 16, workers: int = 0
    ) -> Iterator[Prediction | ValueError]:
        """As ``many``, with the error in the place of an image that cannot be read or scored."""
        paths = [Path(file) for file in files]
        # Relative to the working folder, so that messages name files as they were given.
        records = [ImageRecord(image_id=path.name, path=os.fspath(path)) for path in paths]
        pixels = EvaluationPixels(records, root="", side_px=self._look.image_side_px)
        batches = [range(start, min(start + batch_size, len(paths))) for start in range(0, len(paths), batch_size)]
        for places, batch in zip(batches, build_evaluation_loader(pixels, batches, workers=workers), strict=True):
            raise_system_error(batch.unreadable.values())
            images = [paths[place] for place in batch.positions]
            found = iter(self._predict(batch.images_bchw, images, batch.file_wh, label))
            for place in places:
                error = batch.unreadable.get(place)
                yield next(found) if error is None else ImageDecodeError(str(error))

    def find_class(self, text: str) -> int:
        """Label of the class of this index, wnid or name; one of the names that are joined by commas is enough.

        ValueError for none, which names the nearest, and for several.
        """
        if text.isdecimal() and int(text) < self.model.classes:
            return int(text)
        names: dict[str, set[int]] = {}
        for known in (self.names, *self.model.names):
            for label, name in enumerate(known):
                for part in (name, *name.split(",")):
                    names.setdefault(part.strip().casefold(), set()).add(label)
        found = sorted(names.get(text.strip().casefold(), ()))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"class {text!r}: {len(found)} classes have this name; give one of the indexes {found}")
        near = difflib.get_close_matches(text.casefold(), names, n=3)
        raise ValueError(
            f"class {text!r}: expected an index from 0 to {self.model.classes - 1}, a wnid or a name"
            + (f"; similar are {', '.join(map(repr, near))}" if near else "")
        )

    def _predict(
        self,
        images_bchw: torch.Tensor,
        images: Sequence[Path | Picture],
        sizes_wh: Sequence[tuple[int, int]],
        label: int | None,
    ) -> list[Prediction | ValueError]:
        if label is not None and not 0 <= label < self.model.classes:
            raise ValueError(f"class {label}: expected 0 to {self.model.classes - 1}, one of the network's classes")
        if not images:
            return []
        labels_b = torch.full((len(images),), UNKNOWN_LABEL if label is None else label)
        seen = self._look(images_bchw.to(self.model.device), labels_b)
        scores_bk, maps_bhw = seen.scores_bk.cpu().numpy(), seen.maps[self.localizer].cpu().numpy()
        probabilities_bk = seen.probabilities_bk.double().cpu().numpy()
        found: list[Prediction | ValueError] = []
        for row, (image, (width, height)) in enumerate(zip(images, sizes_wh, strict=True)):
            if not np.isfinite(scores_bk[row]).all():
                found.append(ValueError("the network gives class scores that are NaN or infinite"))
                continue
            best = np.argsort(-scores_bk[row], kind="stable")[:TOP_CLASSES].tolist()
            box_4 = self._box(maps_bhw[row], image_wh=(width, height))
            classes = [
                ClassScore(one, self.names[one] if self.names else "", float(probabilities_bk[row, one]))
                for one in (*best, int(seen.classes_b[row]))
            ]
            found.append(
                Prediction(
                    image=image,
                    width=width,
                    height=height,
                    classes=tuple(classes[:-1]),
                    localized=classes[-1],
                    box_xyxy=None if box_4 is None else tuple(box_4.tolist()),
                    map_hw=maps_bhw[row],
                )
            )
        return found


def read_class_names(path: Path, *, classes: int, trained: ClassNames = NO_NAMES) -> list[str]:
    """Names of all classes from a file with one name per line, in label order.

    ValueError for another number, and for a name that the checkpoint has at another place.
    """
    names = path.read_text(encoding="utf-8-sig").splitlines()
    if len(names) != classes:
        raise ValueError(f"{path}: expected the names of {classes} classes, one per line, found {len(names)} lines")
    check_class_names(names, trained, source=path)
    return names


def _raised(found: Prediction | ValueError) -> Prediction:
    if isinstance(found, ValueError):
        raise found
    return found
