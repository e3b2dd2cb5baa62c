"""Turns the finished images of an unfinished shard into a file beside it, from which a stopped run goes on.

``.SHARD.HOST.PID.TOKEN.journal`` holds frames (``frames``): first the digest of what decides the shard, then one for
each finished image and one for each death of the process that worked on an image. Every process writes a file of its
own and reads those of all others, so runs need no lock; the files are removed when the shard is committed. Records are
not synced to the disk one by one: a killed process loses none, a power cut loses some, which are then made again.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pseudo_maps.files import host_name
from pseudo_maps.processes import is_running
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ImageDeath, MadeImage
from pseudo_maps.runs.frames import encode_frame, header_of, intact_frames
from pseudo_maps.shards.layout import STATUS_OK, MapRow, canonical_json
from pseudo_maps.shards.leftovers import parse_partial_name

__all__ = ["JournalState", "ShardJournal", "remove_journals_of_finished_shards", "shard_digest"]

_VERSION = 1


@dataclass(kw_only=True)
class JournalState:
    """What earlier tries of a shard have found out."""

    finished: dict[int, MadeImage] = field(default_factory=dict)
    """By row."""
    deaths: dict[int, list[ImageDeath]] = field(default_factory=dict)
    """By row, for images that are not finished."""


def shard_digest(records: Sequence[ImageRecord], *, provenance: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a shard, as 64 hexadecimal digits: journals of another one are not used."""
    digest = hashlib.sha256(canonical_json(dict(provenance)).encode())
    for record in records:
        digest.update(ascii((record.image_id, record.path, record.wnid, record.label)).encode())
    return digest.hexdigest()


class ShardJournal:
    """Appends what happens to the images of one shard to this process's file.

    Parameters
    ----------
    shard
        Path of the shard.
    digest
        ``shard_digest`` of the shard.

    Notes
    -----
    The file appears with the first record. When another run commits the same shard it also removes this file; on a
    network file system writing to it may then fail, which is no loss.
    """

    def __init__(self, shard: Path, *, digest: str) -> None:
        self._shard, self._digest = shard, digest
        name = f".{shard.name}.{host_name()}.{os.getpid()}.{secrets.token_hex(4)}.journal"
        self._path = shard.with_name(name)
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, *, retry_failed: bool = False) -> JournalState:
        """What this and all other processes have written about this shard, up to where their files are whole.

        Parameters
        ----------
        retry_failed
            Leave out images that failed, and deaths.
        """
        state = JournalState()
        for path in _journals_of(self._shard):
            try:
                frames = intact_frames(path.read_bytes())
            except FileNotFoundError:
                continue
            head, _ = next(frames, ({}, b""))
            if head != self._head():
                continue
            for header, payload in frames:
                if "made" in header:
                    image = MadeImage(**{**header["made"], "row": MapRow(**header["made"]["row"])}, chunk=payload)
                    state.finished[image.index] = image
                else:
                    death = ImageDeath(**header["death"])
                    state.deaths.setdefault(death.index, []).append(death)
        if retry_failed:
            state.deaths.clear()
            state.finished = {row: image for row, image in state.finished.items() if image.row.status == STATUS_OK}
        for row in state.finished:
            state.deaths.pop(row, None)
        return state

    def add(self, event: MadeImage | ImageDeath) -> None:
        """Append what became of one image.

        Raises
        ------
        OSError
            The disk is full or the folder not writable.
        """
        fields = header_of(event)
        if isinstance(event, MadeImage):
            chunk = fields.pop("chunk")
            frame = encode_frame({"made": fields | {"row": header_of(event.row)}}, chunk)
        else:
            frame = encode_frame({"death": fields})
        try:
            if self._file is None:
                self._file = FileIO(self._path, "xb")
                frame = encode_frame(self._head()) + frame
            rest = memoryview(frame)
            while rest:
                # A disk that gets full takes a part first.
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise

    def _head(self) -> dict[str, Any]:
        return {"journal": _VERSION, "shard": self._shard.name, "digest": self._digest}

    def remove_all(self) -> None:
        """Remove the journals of this shard, of all processes: it is committed."""
        for path in _journals_of(self._shard):
            path.unlink(missing_ok=True)


def _journals_of(shard: Path) -> list[Path]:
    found = ((path, parse_partial_name(path.name)) for path in shard.parent.glob(f".{shard.name}.*.journal"))
    return sorted(path for path, name in found if name is not None and name.target == shard.name)


def remove_journals_of_finished_shards(folder: Path) -> None:
    """Remove journals that a process left which was killed between committing its shard and removing them."""
    for path in folder.iterdir():
        name = parse_partial_name(path.name)
        if name is None or not name.is_journal or not (folder / name.target).exists():
            continue
        if name.host != host_name() or not is_running(name.process):
            with suppress(FileNotFoundError):
                path.unlink()
