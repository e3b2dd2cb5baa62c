"""Turns JSON headers with bytes beside them into checksummed frames, and streams of frames back into them.

One frame is three little-endian 32-bit words (bytes of the header, bytes of the payload, CRC-32 of both together),
the header as JSON, and the payload. The pipes to the image processes and the journals of shards hold frames: a journal
that was cut off in the middle of one is read up to there.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

__all__ = ["DamagedFrame", "FrameBuffer", "encode_frame", "header_of", "intact_frames"]

_PREFIX = struct.Struct("<III")
_LARGEST_PART_BYTES = 1 << 30
"""A longer header or payload is damage: a map of 16,384 x 16,384 pixels has 2^28 bytes."""


class DamagedFrame(ValueError):
    """Bytes that are no frame."""


def header_of(item: Any) -> dict[str, Any]:
    """Fields of a dataclass by name, as they are: ``dataclasses.asdict`` copies deeply, at twelve times the price."""
    return {field.name: getattr(item, field.name) for field in fields(item)}


def encode_frame(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One frame of a JSON header and a payload."""
    # Plain ASCII: file names that are no UTF-8 (lone surrogates) come back as they were.
    head = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    return _PREFIX.pack(len(head), len(payload), zlib.crc32(payload, zlib.crc32(head))) + head + payload


class FrameBuffer:
    """Collects the bytes of a stream and gives out its frames as they become complete."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Append what was read from the stream."""
        self._bytes += data

    def next_frame(self) -> tuple[dict[str, Any], bytes] | None:
        """Header and payload of the next frame, ``None`` while it is incomplete.

        Raises
        ------
        DamagedFrame
            The checksum, a length or the header is wrong; nothing after it can be read.
        """
        if len(self._bytes) < _PREFIX.size:
            return None
        head_bytes, payload_bytes, checksum = _PREFIX.unpack_from(self._bytes)
        if max(head_bytes, payload_bytes) > _LARGEST_PART_BYTES:
            raise DamagedFrame(f"a frame of {head_bytes} and {payload_bytes} bytes")
        start, end = _PREFIX.size + head_bytes, _PREFIX.size + head_bytes + payload_bytes
        if len(self._bytes) < end:
            return None
        head, payload = bytes(self._bytes[_PREFIX.size : start]), bytes(self._bytes[start:end])
        if zlib.crc32(payload, zlib.crc32(head)) != checksum:
            raise DamagedFrame(f"a frame of {end} bytes whose checksum is wrong")
        header = json.loads(head)
        if not isinstance(header, dict):
            raise DamagedFrame(f"a frame whose header is {head[:40]!r}, expected an object")
        del self._bytes[:end]
        return header, payload


def intact_frames(data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The frames from the start of ``data`` up to the first that is damaged or cut off."""
    buffer = FrameBuffer()
    position = 0
    while True:
        try:
            frame = buffer.next_frame()
        except ValueError:
            return
        if frame is not None:
            yield frame
        elif position < len(data):
            # A piece at a time, so that taking a frame off the front does not move a whole journal.
            buffer.feed(data[position : position + (1 << 16)])
            position += 1 << 16
        else:
            return
