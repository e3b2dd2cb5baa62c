"""Sources of score maps: shards, files, or none; a network is one more (``pipelines.jobs.network_maps``)."""

import hashlib
import os
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import MAP_NOT_USABLE, NO_MAP
from evaluation.images import EvaluationBatch, EvaluationImage
from evaluation.map_files import MAP_SUFFIXES, read_map
from evaluation.scoring import ImageMaps, MapBatch
from pseudo_maps.files import evenly_spaced
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_OK, MapIndex, ShardError
from pseudo_maps.shards.sources import check_sources

MAP_LOCALIZER = "pseudo-map"
"""Name of the localizer that is a folder of maps, unless the maps say that a network's localizer made them."""

LOOKED_AT_MAPS = 64
"""Maps that tell what their 0 means: one to ten milliseconds each."""

_SPLITS = frozenset({"train", "val", "test"})

_LOCALIZER_NAME = re.compile(r"[a-z]+([-*][a-z]+)*")
"""What a name in a shard may look like to stand in columns and tables, such as ``cam*saliency``."""


class MapSource(Protocol):
    """Where an evaluation takes its maps from."""

    localizers: tuple[str, ...]
    """Names of the maps of an image."""
    batch_size: int
    """Images whose maps are made, scored and stored together."""
    needs_labels: bool = False
    """Whether its maps are of the image's class; a pseudo map is of the image alone."""

    def maps(self, batches: Iterable[EvaluationBatch]) -> Iterator[MapBatch]:
        """Maps of images, batch by batch, in order."""
        return (MapBatch(batch, [self.maps_of(image) for image in batch]) for batch in batches)

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """Maps of one image, or why there is none."""

    def config(self) -> dict[str, Any]:
        """What decides the maps, for metrics.json."""
        return {}

    def stamp(self) -> str | None:
        """What tells whether the files have changed where ``config`` has no digest of them."""
        return None


class NoMaps(MapSource):
    """For the baselines alone, which need no map."""

    localizers: tuple[str, ...] = ()
    batch_size = 64

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """No map, and no failure."""
        return ImageMaps()


class StoredMaps(MapSource):
    """Base of the sources whose maps lie in a folder: one localizer, one map per image."""

    localizers: tuple[str, ...] = (MAP_LOCALIZER,)
    batch_size = 64
    """A tenth of a second to a second of work."""
    min_max: bool = False
    """Whether each map is stretched to the range from 0 to 1 before anything else is done with it."""
    classes: Mapping[str, Mapping[str, Any]] = {}
    """By image id what another classifier says: fields of ``ImageMaps``."""
    _stamp: str | None = None

    def maps(self, batches: Iterable[EvaluationBatch]) -> Iterator[MapBatch]:
        """Maps of images with their classes, batch by batch, in order."""
        for batch in super().maps(batches):
            classes = (self.classes.get(image.record.image_id, {}) for image in batch.images)
            yield MapBatch(
                batch.images, [replace(maps, **of_image) for maps, of_image in zip(batch.maps, classes, strict=True)]
            )

    def stamp(self) -> str | None:
        """Digest of names, sizes and times of the files where they have no checksums."""
        return self._stamp

    def unused(self, records: Sequence[ImageRecord]) -> list[str]:
        """Names of the maps that belong to no image of ``records``, which are all of a split.

        ValueError when one map would serve two images, or lies in a folder of other images.
        """
        taken: dict[str, str] = {}
        folders = {folder for record in records for folder in _folders_of(record.path)}
        for record in records:
            for name in self._names_of(record):
                _check_folder(name, record, folders)
                first = taken.setdefault(name, record.image_id)
                if first != record.image_id:
                    raise ValueError(
                        f"{name}: would be the map of the images {first!r} and {record.image_id!r}; name the files by "
                        "image ids, with their folders"
                    )
        return [name for name in self._names() if name not in taken]

    def check_images(self, records: Sequence[ImageRecord], *, root: Path) -> list[str]:
        """Warnings of images that are not those that the maps were made of, as far as the maps tell."""
        return []

    def lacking(self, records: Iterable[ImageRecord]) -> list[str]:
        """Ids of the images of ``records`` that no map belongs to, in their order."""
        return [record.image_id for record in records if not self._names_of(record)]

    def describe_zero(self, images: Sequence[EvaluationImage]) -> str:
        """What 0 means in these maps, where rules that clip scores at 0 depend on it; empty where nothing tells.

        Read from up to ``LOOKED_AT_MAPS`` evenly spaced maps; those of two values, such as masks, tell nothing.
        """
        spaced = evenly_spaced(images, most=LOOKED_AT_MAPS)
        given = [map_hw for image in spaced for map_hw in self.maps_of(image).whole.values()]
        lowest = [float(map_hw.min()) for map_hw in given if _tells_zero(map_hw)]
        negative = sum(least < 0 for least in lowest)
        if negative:
            return f"{negative} of {len(lowest)} maps have scores below 0, which count as 0"
        if lowest and not any(lowest):
            return "the least score of every map is 0, as in maps that were scaled from their minimum or clipped"
        return ""

    def _map(self, map_hw: npt.NDArray[Any]) -> ImageMaps:
        """The map of an image as the evaluation takes it."""
        return ImageMaps(whole={self.localizers[0]: stretched_map(map_hw) if self.min_max else map_hw})

    def _config(self, described: dict[str, Any]) -> dict[str, Any]:
        return {"maps": {**described, **({"range": "min-max"} if self.min_max else {})}}

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """Names of all maps."""

    @abstractmethod
    def _names_of(self, record: ImageRecord) -> list[str]:
        """Names of the maps that belong to an image."""


def open_stored_maps(folder: Path, *, split: str, min_max: bool = False, localizer: str | None = None) -> StoredMaps:
    """The maps in a folder: shards of the split when there are any, else files of maps; ValueError for neither.

    ``min_max`` stretches each map to the range from 0 to 1; ``localizer`` is the name of the maps in results, by
    default that of the shards.
    """
    shards = any(folder.glob(f"{split}-*-of-*.h5"))
    source: StoredMaps = ShardMaps(folder, split=split) if shards else FileMaps(folder)
    if isinstance(source, FileMaps) and not source.places:
        raise ValueError(
            f"{folder}: expected shards named {split}-00000-of-....h5 or files of maps ({', '.join(MAP_SUFFIXES)}), "
            "found neither"
        )
    source.min_max = min_max
    if localizer is not None:
        source.localizers = (localizer,)
    return source


def stretched_map(map_hw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A map (H, W) from its minimum and maximum to 0 and 1, float64; as it is where it is no map or has two values."""
    if not _tells_zero(map_hw):
        return map_hw
    scores_hw = np.asarray(map_hw, dtype=np.float64)
    # Subtracted after the division: the range of huge scores may exceed float64.
    largest = float(np.abs(scores_hw).max())
    scores_hw = scores_hw / largest - scores_hw.min() / largest
    stretched_hw: npt.NDArray[Any] = scores_hw / scores_hw.max()
    return stretched_hw


def _folders_of(path: str) -> set[str]:
    return set(path.split("/")[:-1])


def _check_folder(name: str, record: ImageRecord, folders: Collection[str]) -> None:
    """ValueError where a map of an image's file name lies in the folder of another class or split."""
    own, there = _folders_of(record.path), _folders_of(name)
    strange = there.intersection(folders) - own
    if own & _SPLITS and there & _SPLITS and ("train" in own) != ("train" in there):
        strange |= there & _SPLITS
    if strange:
        raise ValueError(
            f"{name}: has the file name of {record.path}, but lies in a folder {min(strange)!r}: expected a map of "
            "that image; give a folder with the maps of this split alone, in the folders of their classes or in none"
        )


def _tells_zero(map_hw: npt.NDArray[Any]) -> bool:
    """Whether a map is sound and has more than two values; anything else keeps its scores, and its error."""
    if map_hw.ndim != 2 or map_hw.dtype.kind not in "uif" or not map_hw.size or not np.isfinite(map_hw).all():
        return False
    return bool(((map_hw > map_hw.min()) & (map_hw < map_hw.max())).any())


class ShardMaps(StoredMaps):
    """Maps of ``wsol-prep proposals`` or of ``wsol-eval run --save-maps``."""

    def __init__(self, folder: Path, *, split: str) -> None:
        self._index = MapIndex(folder, split)
        self.localizers = (_localizer_of(self._index.provenance["configuration"]),)
        # A network's, of a class and scaled.
        self.needs_labels = self.localizers != (MAP_LOCALIZER,)
        self._sha256 = self._index.digest()
        if self._sha256 is None:
            # Without their checksums two folders of equal provenance could not be told apart.
            self._stamp = _files_digest(sorted(folder.glob(f"{split}-*-of-*.h5")), folder=folder)

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """The stored map, 255 at its peak, or a failure with the shard's status; ShardError for a damaged map."""
        image_id = image.record.image_id
        if image_id not in self._index:
            return ImageMaps(failure=NO_MAP)
        status = self._index.status(image_id)
        if status != STATUS_OK:
            return ImageMaps(failure=f"{MAP_NOT_USABLE}{status}")
        try:
            return self._map(self._index.read_uint8(image_id))
        except ShardError as error:
            raise ShardError(f"image {image_id!r}: {error}") from error

    def check_images(self, records: Sequence[ImageRecord], *, root: Path) -> list[str]:
        """Warnings of images that were replaced since their maps were made; ShardError where most were."""
        return check_sources(self._index, records, root=root)

    def config(self) -> dict[str, Any]:
        """Configuration stored in the shards and a digest of their checksum files."""
        provenance = dict(self._index.provenance)
        return self._config({"format": "shards", "sha256": self._sha256, "provenance": provenance})

    def describe_zero(self, images: Sequence[EvaluationImage]) -> str:
        """Nothing for maps of proposals, whose 0 is no proposal; saved score maps were scaled from their minimum."""
        return "saved score maps are scaled from their minimum" if self.needs_labels else ""

    def _names(self) -> Iterable[str]:
        return self._index

    def _names_of(self, record: ImageRecord) -> list[str]:
        return [record.image_id] if record.image_id in self._index else []


def names_of(record: ImageRecord) -> list[str]:
    """What a file of another tool may call an image: its id, path or file name, with or without suffix."""
    path = Path(record.path)
    plain_id = record.image_id.removesuffix(path.suffix)
    names = (record.image_id, plain_id, record.path, path.with_suffix("").as_posix(), path.name, path.stem)
    return list(dict.fromkeys(names))


class FileMaps(StoredMaps):
    """One file per image, in any subfolder, named by the image's id, path or file name, with or without suffix.

    With ``stacks`` a folder of that name may take the place of the file: its files are masks of the image.
    """

    def __init__(self, folder: Path, *, suffixes: Collection[str] = MAP_SUFFIXES, stacks: bool = False) -> None:
        self._folder = folder
        self.places = tuple(_find_files(folder, suffixes=suffixes))
        """Paths of all files relative to the folder, sorted."""
        self._stamp = _files_digest([folder / place for place in self.places], folder=folder)
        self._placed: dict[str, list[tuple[str, ...]]] = {}
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        members: dict[str, list[str]] = {}
        for place in self.places:
            name = os.path.splitext(place)[0]
            self._placed.setdefault(name, []).append((place,))
            self._by_name.setdefault(os.path.basename(name), []).append((place,))
            if stacks:
                members.setdefault(os.path.dirname(place), []).append(place)
        self._stacks: dict[str, list[tuple[str, ...]]] = {}
        for name, of_folder in members.items():
            for key in {name, os.path.basename(name)}:
                self._stacks.setdefault(key, []).append(tuple(of_folder))

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """The array of a file; ValueError when it holds no plain array, or two files could be meant."""
        paths = self.paths_of(image.record)
        if not paths:
            return ImageMaps(failure=NO_MAP)
        try:
            map_hw = read_map(paths[0])
        except ValueError as error:
            raise ValueError(f"image {image.record.image_id!r}: {paths[0]}: {error}") from error
        if map_hw.ndim == 3:
            raise ValueError(
                f"image {image.record.image_id!r}: {paths[0]}: expected one map (H, W), found {map_hw.shape}: several "
                "maps or masks of an image are averaged by wsol-prep import, whose shards can be scored"
            )
        return self._map(map_hw)

    def paths_of(self, record: ImageRecord) -> list[Path]:
        """Files that make the map of an image, mostly one; none without a map. ValueError where two could be meant."""
        found = self._found(record)
        if len(found) > 1:
            raise ValueError(
                f"image {record.image_id!r}: expected one map, found "
                f"{' and '.join(str(self._folder / places[0]) for places in found)}"
            )
        return [self._folder / place for places in found for place in places]

    def size_of(self, record: ImageRecord) -> tuple[int, int] | None:
        """Width and height of the map of an image; None without one file of one map."""
        paths = self.paths_of(record)
        try:
            array = read_map(paths[0]) if paths and paths[0].suffix.lower() in MAP_SUFFIXES else None
        except ValueError:
            # Whatever reads it says so.
            return None
        return (array.shape[1], array.shape[0]) if array is not None and array.ndim == 2 else None

    def config(self) -> dict[str, Any]:
        """The number of files."""
        return self._config({"format": "files", "files": len(self.places)})

    def _names(self) -> Iterable[str]:
        return self.places

    def _names_of(self, record: ImageRecord) -> list[str]:
        return [place for places in self._found(record) for place in places]

    def _found(self, record: ImageRecord) -> list[tuple[str, ...]]:
        """Files whose place in the folder is a name of the image; failing that, files of its name anywhere below."""
        names = names_of(record)
        for group in (self._placed, self._by_name, self._stacks):
            found = [places for name in names for places in group.get(name, [])]
            if found:
                return found
        return []


def _find_files(folder: Path, *, suffixes: Collection[str]) -> list[str]:
    """Paths, relative to the folder, of the files in it and below it whose names end in one of the suffixes, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder, onerror=refuse, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in suffixes
    )


def _localizer_of(configuration: Any) -> str:
    """The network's localizer whose maps ``wsol-eval run --save-maps`` stored, else the name of all other maps."""
    stored = configuration.get("score_maps") if isinstance(configuration, dict) else None
    name = stored.get("localizer") if isinstance(stored, dict) else None
    return name if isinstance(name, str) and _LOCALIZER_NAME.fullmatch(name) else MAP_LOCALIZER


def _files_digest(files: Sequence[Path], *, folder: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
