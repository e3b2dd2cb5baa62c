"""Import of maps, masks and proposals of other tools as shards."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import same_shape
from evaluation.map_files import MAP_SUFFIXES, read_map
from evaluation.maps import FileMaps, stretched_map
from evaluation.workers import map_in_order
from pipelines.datasets import Dataset
from pipelines.jobs.box_checks import check_map_names, check_map_shapes
from pipelines.jobs.mat_files import read_mat_map
from pseudo_maps.files import evenly_spaced
from pseudo_maps.images import ImageDecodeError, ImageTimeoutError, image_size
from pseudo_maps.proposals.weighting import uniform_saliency
from pseudo_maps.reading import ReadTimeout, read_sha256
from pseudo_maps.records import ImageRecord
from pseudo_maps.resampling import area_average
from pseudo_maps.runs.generation import RunConfig, Summary, plan_run
from pseudo_maps.runs.given_maps import write_shards
from pseudo_maps.shards import STATUS_OK, STATUS_TIMEOUT, quantise_map
from pseudo_maps.shards.outcomes import MadeMap, row_of

_MAT_SUFFIX = ".mat"


class MapImport:
    """Files of maps in a folder, and the shards that come of them.

    Parameters
    ----------
    dataset
        Images of the split, each of which becomes a row.
    folder
        Folder of ``MAP_SUFFIXES`` and ``.mat`` files, named as ``FileMaps`` reads them; a folder of that name holds the
        masks of an image.
    map_size
        Side in pixels of the stored maps.
    min_max
        Stretch each map from its minimum and maximum to 0 and 1; otherwise negative values count as 0.
    limit
        Number of first images; None for all.

    Raises
    ------
    ValueError
        No map belongs to any image, one to two images, or two to one; or a folder of other maps (ManifestMismatch).
    """

    def __init__(
        self, dataset: Dataset, *, folder: Path, map_size: int, min_max: bool, limit: int | None, run: RunConfig
    ) -> None:
        self._root, self._run, self._map_size, self._min_max = dataset.root, run, map_size, min_max
        suffixes = (*MAP_SUFFIXES, _MAT_SUFFIX)
        source = FileMaps(folder, suffixes=suffixes, stacks=True)
        if not source.places:
            raise ValueError(f"{folder}: expected files of maps ({', '.join(suffixes)}), found none")
        records = dataset.records[:limit]
        self.notes = check_map_names(source, folder, wanted=records, known=dataset.records, without="counts as failed")
        """What a user should know of maps without an image and of images without a map."""
        self.notes += check_map_shapes(source, folder, records, root=dataset.root)
        self._work = [(record, source.paths_of(record)) for record in records]
        paths = [path for _, of_image in self._work for path in of_image]
        configuration = {
            "method": "imported",
            "rule": "from minimum and maximum to 0 and 1" if min_max else "negative is 0; divided by the maximum",
            "files": {"number": len(paths), "sha256": _digest(paths, folder=folder)},
            "map_size": map_size,
        }
        self.plan = plan_run(records, split=dataset.split, configuration=configuration, run=run)

    def make(self, *, on_images: Callable[..., None] = lambda _count, *, failed: None) -> Summary:
        """Make the shards that the plan says are to be made, with ``jobs`` processes; as ``write_shards``.

        A file that holds no map costs its own row.
        """
        size = self.plan.manifest.shard_size
        work = [one for shard in self.plan.to_do for one in self._work[shard * size : (shard + 1) * size]]
        task = functools.partial(_made_map, root=self._root, map_size=self._map_size, min_max=self._min_max)
        made = map_in_order(task, work, jobs=self._run.jobs)
        shards = ((shard, itertools.islice(made, self.plan.manifest.shard_rows(shard))) for shard in self.plan.to_do)
        return write_shards(self.plan, shards, run=self._run, map_size=self._map_size, on_images=on_images)


def _digest(paths: Sequence[Path], *, folder: Path) -> str:
    """SHA-256 of the names and sizes of all files and the contents of a thousand: reading millions takes hours."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(
            f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode(errors="surrogateescape")
        )
    for path in evenly_spaced(paths, most=1000):
        digest.update(read_sha256(path).encode())
    return digest.hexdigest()


def _made_map(work: tuple[ImageRecord, Sequence[Path]], *, root: Path, map_size: int, min_max: bool) -> MadeMap:
    record, paths = work
    image = root / record.path
    image_wh = None
    try:
        image_wh = image_size(image)
    except ImageTimeoutError:
        status = STATUS_TIMEOUT
    except ImageDecodeError:
        status = "unreadable" if image.exists() else "missing"
    map_uint8, peak, count, message = np.zeros((map_size, map_size), dtype=np.uint8), 0.0, 0, ""
    if image_wh is None:
        message = f"{image}: the header of the image cannot be read"
    elif not paths:
        status, message = "no-map", "no file is called as the image"
    else:
        try:
            map_hw, count = _read(paths, image_wh=image_wh)
            map_uint8, peak = stored_map(map_hw, map_size=map_size, min_max=min_max)
            status = STATUS_OK
        except ValueError as error:
            place = paths[0] if len(paths) == 1 else paths[0].parent
            status = STATUS_TIMEOUT if isinstance(error, ReadTimeout) else "bad-map"
            count, message = 0, f"{place}: {error}"
    width, height = image_wh or (0, 0)
    row = row_of(record, height=height, width=width, peak=peak, proposals=count, status=status)
    return MadeMap(map_uint8=map_uint8, row=row, message=message)


def _read(paths: Sequence[Path], *, image_wh: tuple[int, int]) -> tuple[npt.NDArray[Any], int]:
    """The map (H, W) of an image, averaged where there are several masks, and the number of these."""
    is_mat = paths[0].suffix.lower() == _MAT_SUFFIX
    count = 0
    if len(paths) > 1:
        map_hw: npt.NDArray[Any] = np.stack([read_map(path) for path in paths])
    elif is_mat:
        map_hw, count = read_mat_map(paths[0])
    else:
        map_hw = read_map(paths[0])
    if map_hw.ndim == 3 and map_hw.shape[:2] == image_wh[::-1] != map_hw.shape[1:]:
        raise ValueError(f"expected a stack (N, H, W), found {map_hw.shape}: move the last axis to the front")
    if map_hw.ndim == 3:
        map_hw, count = average_stack(map_hw)
    if map_hw.ndim == 2 and not same_shape(map_hw.shape[::-1], image_wh):
        width, height = image_wh
        expected = f"the image has {height} rows and {width} columns, the map {map_hw.shape}"
        if same_shape(map_hw.shape, image_wh):
            raise ValueError(f"transposed: {expected}")
        if is_mat and count:
            raise ValueError(f"{expected}; expected masks (H, W, N) of the shape of the image, as MATLAB stores them")
    return map_hw, count


def average_stack(stack_nhw: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Average (H, W) of masks or maps (N, H, W) of any real dtype, and N.

    Masks, whose values are 0 and one other, are averaged as proposals are: float32, the share of masks that contain a
    pixel. Other values are averaged in float64. ValueError for an empty stack or another dtype.
    """
    _check_numbers(stack_nhw)
    count, height, width = stack_nhw.shape
    if ((stack_nhw == 0) | (stack_nhw == stack_nhw.max())).all():
        return uniform_saliency((stack_nhw != 0).reshape(count, -1)).reshape(height, width), count
    return stack_nhw.mean(axis=0, dtype=np.float64), count


def stored_map(map_hw: npt.NDArray[Any], *, map_size: int, min_max: bool) -> tuple[npt.NDArray[np.uint8], float]:
    """A map (H, W) of any size, real dtype and range as a shard stores it: (map_size, map_size) uint8, and its peak.

    Negative values count as 0, so that 0 stays 0 and the maximum becomes 255; ``min_max`` moves the minimum to 0
    instead. Sides shorter than ``map_size`` are enlarged by bilinear interpolation, longer ones averaged over area,
    pixel centres aligned. The peak is the maximum at that size, in units of the map; after ``min_max`` it is at most 1.
    ValueError for another shape or dtype, NaN or infinity.
    """
    _check_numbers(map_hw)
    if map_hw.ndim != 2:
        raise ValueError(f"expected a map (H, W), found shape {map_hw.shape}")
    scores_hw = np.maximum(stretched_map(map_hw) if min_max else map_hw, 0).astype(np.float64)
    highest = float(scores_hw.max()) or 1.0
    unit_hw = (scores_hw / highest).astype(np.float32)
    height, width = unit_hw.shape
    if min(height, width) < map_size:
        size_wh = (max(width, map_size), max(height, map_size))
        unit_hw = cv2.resize(unit_hw, size_wh, interpolation=cv2.INTER_LINEAR)
    stored_hw, peak = quantise_map(area_average(unit_hw, height=map_size, width=map_size))
    return stored_hw, peak * highest


def _check_numbers(values: npt.NDArray[Any]) -> None:
    if not values.size or values.dtype.kind not in "buif" or not np.isfinite(values).all():
        raise ValueError(f"expected finite real numbers, found shape {values.shape} of {values.dtype}")
