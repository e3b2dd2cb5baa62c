"""Map files of other tools read as arrays: NumPy arrays and archives, PNG and TIFF pictures."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from pseudo_maps.reading import read_file

MAP_SUFFIXES = (".npy", ".npz", ".png", ".tif", ".tiff")
"""Files that ``read_map`` reads."""

_ONE_CHANNEL = ("1", "L", "I", "I;16", "I;16B", "F")
"""Pillow's modes whose pixels are one number."""


def read_map(path: Path) -> npt.NDArray[Any]:
    """The array in a file: (H, W) of any real dtype, or a stack (N, H, W) of several.

    Axes of length one before and after the map are dropped: (1, H, W), (H, W, 1) and (1, 1, H, W) are (H, W). An
    archive (``.npz``) holds one array. A picture has one channel of any depth, or colours that are all grey, as some
    tools save; the pages of a TIFF are a stack. ValueError says what was expected and found, not in which file;
    errors as ``read_file``.
    """
    file = io.BytesIO(read_file(path))
    try:
        read = {".npy": _read_npy, ".npz": _read_npz}.get(path.suffix.lower(), _read_picture)
        array = read(file)
    except Exception as error:
        # Whatever zipfile, zlib, NumPy and Pillow raise for damage, some of it without text, some with several lines.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"expected a plain numeric array or a grey picture: {reason}") from error
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _read_npy(file: BinaryIO) -> npt.NDArray[Any]:
    # Not np.load, which takes archives too.
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_npz(file: BinaryIO) -> npt.NDArray[Any]:
    with np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile) or len(archive.files) != 1:
            found = ", ".join(archive.files) if isinstance(archive, np.lib.npyio.NpzFile) else "no archive"
            raise ValueError(f"expected an archive of one array, found {found or 'none'}")
        array: npt.NDArray[Any] = archive[archive.files[0]]
    return array


def _read_picture(file: BinaryIO) -> npt.NDArray[Any]:
    with Image.open(file, formats=("PNG", "TIFF")) as image:
        # Pillow decodes a PNG whose checksums are wrong.
        image.verify()
    with Image.open(file, formats=("PNG", "TIFF")) as image:
        pages = [_grey(page) for page in ImageSequence.Iterator(image)]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _grey(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode in _ONE_CHANNEL:
        return np.asarray(image)
    rgba_hwc = np.asarray(image.convert("RGBA"))
    grey_hw = rgba_hwc[..., 0]
    if (rgba_hwc[..., :3] != grey_hw[..., None]).any() or (rgba_hwc[..., 3] != rgba_hwc[0, 0, 3]).any():
        raise ValueError(f"mode {image.mode} with colours or transparency, expected one channel of scores")
    return grey_hw
