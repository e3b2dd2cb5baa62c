"""Object masks of images, for PxAP: one file per image, or the files that the data set lists.

One file is ``<image id>.png`` with 0 background, 255 object and 128 ignored. Listed files hold one object each, and one
of an image the pixels to ignore; there a pixel counts where it is not 0, and objects win over ignored pixels. They are
put together in the frame of 224 x 224 pixels, as in ``MaskEvaluator`` of Choe et al., "Evaluating weakly supervised
object localization methods right" (CVPR 2020).
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX
from evaluation.images import EvaluationImage, EvaluationSet
from evaluation.metrics.pixels import BACKGROUND, IGNORED, OBJECT
from pseudo_maps.images import decode_image
from pseudo_maps.reading import read_sha256


def mask_files(image: EvaluationImage) -> tuple[str, ...]:
    """Files of an image's mask, relative to the folder of all masks; that of ignored pixels last."""
    if not image.mask_files:
        return (f"{image.record.image_id}.png",)
    return (*image.mask_files, image.ignored_file) if image.ignored_file else image.mask_files


def masks_digest(evaluation_set: EvaluationSet, folder: Path) -> str:
    """SHA-256 over all masks; ValueError that names the first file that is not there or hangs."""
    digest = hashlib.sha256()
    for image in evaluation_set.images:
        for name in mask_files(image):
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{path}: no mask of image {image.record.image_id!r}, expected one for every image")
            digest.update(bytes.fromhex(read_sha256(path)))
    return digest.hexdigest()


def read_mask(image: EvaluationImage, folder: Path) -> npt.NDArray[np.uint8]:
    """Mask (H, W) uint8 of an image, as ``count_pixels`` takes it; errors as ``decode_image``."""
    if not image.mask_files:
        return _grey(folder / mask_files(image)[0])
    mask_px = np.full((FRAME_PX, FRAME_PX), BACKGROUND, dtype=np.uint8)
    if image.ignored_file:
        mask_px[_in_frame(folder / image.ignored_file)] = IGNORED
    for name in image.mask_files:
        mask_px[_in_frame(folder / name)] = OBJECT
    return mask_px


def _grey(path: Path) -> npt.NDArray[np.uint8]:
    rgb_hwc = decode_image(path).rgb_hwc
    if (rgb_hwc != rgb_hwc[..., :1]).any():
        raise ValueError(f"{path}: a mask with colours, expected grey levels")
    return np.ascontiguousarray(rgb_hwc[..., 0])


def _in_frame(path: Path) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (
        cv2.resize(_grey(path), (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_NEAREST) > BACKGROUND
    )
    return inside
