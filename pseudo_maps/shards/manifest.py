"""What all shards of a split have in common to ``<split>.manifest.json``, which concurrent tasks agree on."""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pseudo_maps import __version__
from pseudo_maps.files import differences, sync, temporary_path
from pseudo_maps.shards.layout import (
    SCHEMA_VERSION,
    canonical_json,
    check_split,
    parse_shard_name,
)

__all__ = [
    "Manifest",
    "ManifestError",
    "ManifestMismatch",
    "agree_on_manifest",
    "check_manifest",
    "found_splits",
    "ids_digest",
    "manifest_path",
    "read_manifest",
]

_MANIFEST_SUFFIX = ".manifest.json"

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What ``link`` answers on file systems without hard links (exFAT, some FUSE and object stores)."""

_READ_ATTEMPTS = 20
_READ_PAUSE_S = 0.1
"""Without hard links the file has its name before its content; two seconds are ample for a few KB."""


class ManifestError(ValueError):
    """A manifest file is not what it has to be; the message names it."""


class ManifestMismatch(ValueError):
    """A folder holds maps made from other images or with another configuration; every difference is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What every shard of a split has to agree with.

    Raises
    ------
    ValueError
        A split that cannot start a file name, or numbers of images and shards that contradict each other.
    ShardError
        A configuration that is no JSON.
    """

    split: str
    """Name of the split, the start of its shards' names."""
    images: int
    """Number of images, the sum of rows over all shards."""
    shards: int
    """Number of shards."""
    shard_size: int
    """Rows of every shard but the last, which has the rest."""
    ids_sha256: str
    """``ids_digest`` of all image ids in the order of shards and rows."""
    configuration: Mapping[str, Any]
    """Everything that decides the maps, as JSON values (tuples become lists)."""
    schema_version: int = SCHEMA_VERSION
    """Layout version of the shards."""
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

    def shard_rows(self, index: int) -> int:
        """Number of rows of shard ``index``, ``0 <= index < shards``."""
        return min(self.shard_size, self.images - index * self.shard_size)

    def is_of_first(self, image_ids: Sequence[str]) -> bool:
        """Whether its images are the first ``images`` of ``image_ids``, in their order: all of them, or a part.

        A part is what ``--limit`` takes, so nothing more has to be stored to know such a folder.
        """
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
        try:
            split = name.removesuffix(_MANIFEST_SUFFIX)
            if split == name:
                split, _, _ = parse_shard_name(name)
            check_split(split)
        except ValueError:
            continue
        splits.add(split)
    return sorted(splits)


def read_manifest(folder: str | os.PathLike[str], split: str) -> Manifest:
    """Read and check the manifest of ``split``.

    Raises
    ------
    FileNotFoundError
        There is none.
    ManifestError
        It is no JSON object with exactly the fields of ``Manifest``, or belongs to another split.
    """
    path = manifest_path(folder, split)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON ({error}); remove it if no task is running, and run again") from error
    types = {
        "split": str,
        "images": int,
        "shards": int,
        "shard_size": int,
        "ids_sha256": str,
        "configuration": dict,
        "schema_version": int,
        "package_version": str,
    }
    found = set(content) if isinstance(content, dict) else set()
    if found != types.keys():
        raise ManifestError(f"{path}: has the keys {sorted(found)}, expected {sorted(types)}")
    for key, kind in types.items():
        if type(content[key]) is not kind:
            raise ManifestError(f"{path}: {key} is {content[key]!r}, expected {kind.__name__}")
    if content["split"] != split:
        raise ManifestError(f"{path}: is of the split {content['split']!r}, expected {split!r} as in its name")
    try:
        return Manifest(**content)
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error


def agree_on_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> bool:
    """Write the manifest, or compare it with the one that stands there already.

    Any number of tasks on any number of machines may call this at once: one of them writes the file, whole,
    and all others compare. Nothing is ever overwritten.

    Parameters
    ----------
    folder
        Folder of the shards; has to exist.
    manifest
        What this task is about to make.

    Returns
    -------
    bool
        True when this call wrote the file, False when an equal one was there.

    Raises
    ------
    ManifestMismatch
        Another manifest is there; every key that differs is named with both values.
    ManifestError
        What is there is no manifest.
    """
    path = manifest_path(folder, manifest.split)
    if not path.exists() and _create(path, json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"):
        return True
    _compare(path, manifest)
    return False


def check_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Compare the manifest with the one that stands in ``folder``; fine when none does. Writes nothing.

    Raises
    ------
    ManifestMismatch, ManifestError
        As ``agree_on_manifest``.
    """
    path = manifest_path(folder, manifest.split)
    if path.exists():
        _compare(path, manifest)


def _compare(path: Path, manifest: Manifest) -> None:
    found = _read_when_complete(path.parent, manifest.split)
    there, wanted = _plain(found), _plain(manifest)
    if found.images != manifest.images:
        # Digests of lists that are not even of one length tell nobody anything.
        there["ids_sha256"] = wanted["ids_sha256"]
    lines = sorted(differences(there, wanted), key=lambda line: not line.startswith("images:"))
    if lines:
        raise ManifestMismatch(
            f"{path} was made from other images or settings:\n  "
            + "\n  ".join(lines)
            + "\nUse the settings found there, or another output folder."
        )


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {field.name: getattr(manifest, field.name) for field in fields(manifest)}


def _create(path: Path, text: str) -> bool:
    """Give ``text`` the name ``path``; False when the name is taken."""
    temporary = temporary_path(path)
    try:
        _write_new(temporary, text, named=path)
        try:
            # Unlike a rename, a link never replaces what another task has put there meanwhile.
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            _write_new(path, text, named=path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _write_new(path: Path, text: str, *, named: Path) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        sync(path)
    except OSError as error:
        # A full disk shows when writing, and that error names no file; opening names the hidden one.
        raise OSError(error.errno, error.strerror, str(named)) from error


def _read_when_complete(folder: Path, split: str) -> Manifest:
    for _ in range(_READ_ATTEMPTS - 1):
        try:
            return read_manifest(folder, split)
        except ManifestError:
            time.sleep(_READ_PAUSE_S)
    return read_manifest(folder, split)
