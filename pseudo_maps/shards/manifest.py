"""Manifest of a split, ``<split>.manifest.json``: what all its shards have in common."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from pseudo_maps import __version__
from pseudo_maps.files import create_exclusively, differences
from pseudo_maps.shards.layout import (
    PROVENANCE_KEYS,
    SCHEMA_VERSION,
    canonical_json,
    check_split,
    is_split,
    split_of_shard,
)

_MANIFEST_SUFFIX = ".manifest.json"


class ManifestError(ValueError):
    """A manifest file is invalid; the message names it."""


class ManifestMismatch(ValueError):
    """A folder holds maps made from other images or with another configuration; every difference is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What all shards of a split have in common.

    ValueError for an illegal split or contradictory numbers; ShardError for a configuration that JSON cannot hold.
    """

    split: str
    images: int
    """Number of images, the sum of rows over all shards."""
    shards: int
    shard_size: int
    """Rows of every shard but the last, which has the rest."""
    ids_sha256: str
    """``ids_digest`` of all image ids in the order of shards and rows."""
    configuration: Mapping[str, Any]
    """Everything that decides the maps, as JSON values (tuples become lists)."""
    schema_version: int = SCHEMA_VERSION
    package_version: str = __version__
    """Version of the package: another one may give other bytes."""

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.images < 1 or self.shard_size < 1 or self.shards != -(-self.images // self.shard_size):
            raise ValueError(
                f"manifest of {self.split}: {self.shards} shards of {self.shard_size} rows for {self.images} "
                "images, expected at least one image and images / shard_size shards, rounded up"
            )
        # As it reads back from a file, so that what was given and what was read compare equal.
        object.__setattr__(self, "configuration", json.loads(canonical_json(self.configuration)))

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of every shard of the split."""
        return {key: getattr(self, key) for key in PROVENANCE_KEYS}

    def shard_rows(self, index: int) -> int:
        """Number of rows of shard ``index``, ``0 <= index < shards``."""
        return min(self.shard_size, self.images - index * self.shard_size)

    def is_of_first(self, image_ids: Sequence[str]) -> bool:
        """Whether its images are the first ``images`` of ``image_ids``, as ``--limit`` takes them, or all."""
        return self.images <= len(image_ids) and ids_digest(image_ids[: self.images]) == self.ids_sha256


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 (hexadecimal) of image ids in their order: each as UTF-8 followed by one zero byte.

    Examples
    --------
    >>> ids_digest(["a", "b"]) == ids_digest(["b", "a"])
    False
    """
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + b"\0")
    return digest.hexdigest()


def manifest_path(folder: str | os.PathLike[str], split: str) -> Path:
    """Path of the manifest of ``split`` in ``folder``."""
    return Path(folder) / (split + _MANIFEST_SUFFIX)


def found_splits(folder: str | os.PathLike[str]) -> list[str]:
    """Splits that have a shard or a manifest in ``folder``, sorted."""
    splits = set()
    for name in os.listdir(folder):
        split = name.removesuffix(_MANIFEST_SUFFIX) if name.endswith(_MANIFEST_SUFFIX) else split_of_shard(name)
        if split is not None and is_split(split):
            splits.add(split)
    return sorted(splits)


def read_manifest(folder: str | os.PathLike[str], split: str) -> Manifest:
    """Manifest of ``split``; FileNotFoundError without one, ManifestError when it is invalid or of another split."""
    path = manifest_path(folder, split)
    try:
        content = msgspec.json.decode(path.read_bytes())
        if not isinstance(content, dict) or content.keys() != {field.name for field in fields(Manifest)}:
            raise ValueError(f"expected an object with the keys {', '.join(field.name for field in fields(Manifest))}")
        manifest = msgspec.convert(content, Manifest)
    except FileNotFoundError as error:
        what = "no manifest of these shards: copy it from where they were made"
        raise FileNotFoundError(error.errno, what, os.fspath(path)) from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise ManifestError(
            f"{path}: not a manifest ({error}); remove it if no task is running, and run again"
        ) from error
    if manifest.split != split:
        raise ManifestError(f"{path}: is of the split {manifest.split!r}, expected {split!r} as in its name")
    return manifest


def agree_on_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> bool:
    """Write the manifest (True), or compare it with the one that is there (False).

    Any number of tasks on any number of machines may call this at once: one of them writes the file, whole, and all
    others compare. Only where the file system has no hard links may the last of two simultaneous writers win.
    ManifestMismatch names every key that differs, with both values; ManifestError for an invalid file.
    """
    path = manifest_path(folder, manifest.split)
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"
    if not path.exists() and create_exclusively(path, text.encode()):
        return True
    _compare(path, manifest)
    return False


def check_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Compare the manifest with that of ``folder`` if there is one; errors as ``agree_on_manifest``. Writes nothing."""
    path = manifest_path(folder, manifest.split)
    if path.exists():
        _compare(path, manifest)


def _compare(path: Path, manifest: Manifest) -> None:
    found = read_manifest(path.parent, manifest.split)
    there, wanted = asdict(found), asdict(manifest)
    # Digests tell nobody anything, and those of lists of different lengths differ anyway.
    ids = [there.pop("ids_sha256"), wanted.pop("ids_sha256")]
    lines = differences(there, wanted)
    if ids[0] != ids[1] and found.images == manifest.images:
        lines.append("ids_sha256: the images have other ids, or another order")
    refuse_differences(path, lines)


def refuse_differences(path: Path, lines: Sequence[str]) -> None:
    """ManifestMismatch when a manifest or a shard differs, in what ``lines`` say, from what is to be made."""
    if lines:
        raise ManifestMismatch(
            f"{path} was made from other images or settings:\n  "
            + "\n  ".join(lines)
            + "\nUse the settings found there, or another output folder."
        )
