"""Turns saliency maps and what is known of them into HDF5 shards, and shards back into maps.

The format is described in SHARD_FORMAT.md. ``ShardWriter`` makes one shard, ``ShardReader`` reads one, and
``MapIndex`` finds maps by image id over all shards of a split. Neither torch nor OpenCV is imported.

Shapes: N rows of a shard, H W pixels of a map.
"""

import hashlib
import os
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pseudo_maps._fletcher32 import CHECKSUM_BYTES, append_checksum, fletcher32
from pseudo_maps._shard_layout import (
    GZIP_LEVEL,
    SCHEMA_VERSION,
    STATUS_OK,
    STRING_FIELDS,
    MapRow,
    ShardError,
    checksum_path,
    decode_row,
    encode_provenance,
    field_problem,
    list_shards,
    make_provenance,
    parse_shard_name,
    quantise_map,
    row_problem,
    shard_name,
    sync_folder,
    temporary_path,
)
from pseudo_maps._shard_read import ShardFile, open_hdf5, read_head, read_places, scale_map
from pseudo_maps._shard_write import write_shard_file
from pseudo_maps.map_index import MapIndex

__all__ = [
    "SCHEMA_VERSION",
    "STATUS_OK",
    "MapIndex",
    "MapRow",
    "ShardError",
    "ShardReader",
    "ShardWriter",
    "compress_map",
    "file_sha256",
    "list_shards",
    "make_provenance",
    "parse_shard_name",
    "quantise_map",
    "shard_name",
]

_READ_ONLY = 0o444
"""Mode of a finished shard: a killed viewer that had it open for writing would leave it marked as open."""

_READ_BYTES = 1 << 20
"""Bytes read at once for the SHA-256."""


class ShardWriter:
    """Collects the maps of one shard in memory and makes the file in one step.

    Parameters
    ----------
    path
        The shard's final path. Its folder has to exist; a file of that name is replaced at ``commit``.
    rows
        Number of rows N, at least 1.
    map_size
        Height and width in pixels of every map.
    provenance
        JSON values under ``configuration``, ``package_version`` and ``schema_version`` as
        ``make_provenance`` gives them. Nothing that depends on when, where or with how many jobs.
    by_name
        Make a virtual dataset a row under ``/by_name``, for viewers.

    Raises
    ------
    ShardError
        Provenance that cannot be stored, or a number of rows or a map size below 1.

    Notes
    -----
    Maps are compressed as they come (about 10 KB each is kept) and written in row order, so the file does not
    depend on the order of the calls. Leaving the context without ``commit`` discards them, and no path on the
    disk has been touched. Equal inputs give equal bytes with the same zlib, HDF5 and h5py.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> stored_hw, peak = quantise_map(np.array([[0.0, 0.2], [0.3, 0.4]], dtype=np.float32))
    >>> row = MapRow(image_id="a", path="a.png", wnid="", label=-1, height=20, width=20, peak=peak,
    ...     proposals=9, status=STATUS_OK)
    >>> target = Path(folder.name) / shard_name("val", 0, 1)
    >>> made_by = make_provenance({"working_size": 500})
    >>> with ShardWriter(target, rows=1, map_size=2, provenance=made_by) as writer:
    ...     writer.write(0, stored_hw, row)
    ...     writer.commit()
    >>> with ShardReader(target) as reader:
    ...     reader.read_uint8(0).tolist()
    [[0, 128], [191, 255]]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int,
        map_size: int,
        provenance: Mapping[str, Any],
        by_name: bool = True,
    ) -> None:
        if rows < 1 or map_size < 1:
            raise ShardError(f"{path}: {rows} rows of map size {map_size}, expected at least 1 of each")
        self._path = Path(path)
        self._provenance = encode_provenance(provenance)
        self._map_shape = (map_size, map_size)
        self._by_name = by_name
        self._chunks: list[bytes | None] = [None] * rows
        self._rows: list[MapRow | None] = [None] * rows
        self._row_of_id: dict[str, int] = {}
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish()

    def write(self, row_index: int, map_hw_uint8: npt.NDArray[np.uint8], row: MapRow) -> None:
        """Give the map and the table row of one row; rows may come in any order, each exactly once.

        Parameters
        ----------
        row_index
            ``0 <= row_index < N``.
        map_hw_uint8
            (H, W) uint8 from ``quantise_map``: its maximum is 255 unless the peak is 0; all zero for a row
            whose status is not ok.
        row
            What the table holds.

        Raises
        ------
        ShardError
            Index outside the shard or given before, image id given before, another shape or dtype, or a map
            and a row that contradict each other.
        """
        where = f"{self._path}: row {row_index}"
        if map_hw_uint8.dtype != np.uint8 or map_hw_uint8.shape != self._map_shape:
            raise ShardError(
                f"{where}: map is {map_hw_uint8.shape} {map_hw_uint8.dtype}, expected {self._map_shape} uint8"
            )
        problem = row_problem(map_hw_uint8, row)
        if problem is not None:
            raise ShardError(f"{where} ({row.image_id}): {problem}")
        self._check(row_index, row)
        self._chunks[row_index] = compress_map(map_hw_uint8)
        self._rows[row_index] = row

    def write_chunk(self, row_index: int, chunk: bytes, row: MapRow) -> None:
        """As ``write``, for a map that another process has compressed with ``compress_map``.

        That process is trusted to have looked at the map (``row_problem``): here it is only checked that the chunk
        is whole, since decompressing every map again would take longer than all the rest.

        Raises
        ------
        ShardError
            As ``write``, or the chunk is damaged.
        """
        self._check(row_index, row)
        body, stated = chunk[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:]
        if fletcher32(body).to_bytes(CHECKSUM_BYTES, "little") != stated:
            raise ShardError(f"{self._path}: row {row_index} ({row.image_id}): the compressed map is damaged")
        self._chunks[row_index] = chunk
        self._rows[row_index] = row

    def _check(self, row_index: int, row: MapRow) -> None:
        """Whether a row can be taken: where it goes and what the table will hold of it."""
        where = f"{self._path}: row {row_index}"
        if not self._open:
            raise ShardError(f"{where}: the writer is finished")
        if not 0 <= row_index < len(self._rows):
            raise ShardError(f"{where}: expected 0 <= row < {len(self._rows)}")
        if self._rows[row_index] is not None:
            raise ShardError(f"{where}: written before, expected once")
        problem = field_problem(row)
        if problem is not None:
            raise ShardError(f"{where} ({row.image_id}): {problem}")
        first = self._row_of_id.setdefault(row.image_id, row_index)
        if first != row_index:
            raise ShardError(f"{where}: image id {row.image_id!r} is row {first} already, expected unique ids")

    def commit(self) -> None:
        """Make the file, its checksum file and their names durable; afterwards the shard is complete.

        The shard is made under a hidden name beside the target, closed, synced, made read-only and hashed;
        the checksum file gets its name first, so a shard that has its name always has its checksum.

        Raises
        ------
        ShardError
            Rows are missing, or the writer is finished.
        OSError
            The disk is full, the folder is missing or not writable; nothing is left behind.
        """
        if not self._open:
            raise ShardError(f"{self._path}: the writer is finished")
        chunks = [chunk for chunk in self._chunks if chunk is not None]
        rows = [row for row in self._rows if row is not None]
        if len(rows) != len(self._rows):
            raise ShardError(
                f"{self._path}: {len(self._rows) - len(rows)} of {len(self._rows)} rows were not written, "
                f"the first is row {self._rows.index(None)}"
            )
        temporary = temporary_path(self._path)
        target_sum = checksum_path(self._path)
        temporary_sum = temporary_path(target_sum)
        existed = self._path.exists()
        try:
            write_shard_file(
                temporary,
                chunks=chunks,
                rows=rows,
                map_shape=self._map_shape,
                provenance=self._provenance,
                by_name=self._by_name,
            )
            temporary.chmod(_READ_ONLY)
            _write_synced(temporary_sum, f"{file_sha256(temporary)}  {self._path.name}\n")
            temporary_sum.chmod(_READ_ONLY)
            os.replace(temporary_sum, target_sum)
            try:
                os.replace(temporary, self._path)
            except OSError:
                if not existed:
                    target_sum.unlink()
                raise
        finally:
            temporary.unlink(missing_ok=True)
            temporary_sum.unlink(missing_ok=True)
        sync_folder(self._path.parent)
        self._finish()

    def _finish(self) -> None:
        self._open = False
        self._chunks.clear()


class ShardReader:
    """One shard: its table, its provenance and its maps.

    Parameters
    ----------
    path
        The shard's path.

    Raises
    ------
    ShardError
        Not a shard, another schema version, another layout, or damage that shows on opening.
    OSError
        The file is missing or not readable.

    Notes
    -----
    HDF5 is used on opening only. Afterwards a map costs one positioned read, the checksum and inflation: at 224x224
    about 0.06 ms with zlib-ng (``pip install saliency-aware-wsol[fast]``) and 0.12 ms with zlib. Threads may share a
    reader.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file = ShardFile(self._path)
        try:
            with open_hdf5(self._path) as file:
                head = read_head(file, path=self._path)
                self._places = read_places(file, path=self._path)
        except BaseException:
            self._file.close()
            raise
        self._stored_table = head.table
        self.provenance: dict[str, Any] = head.provenance
        """``configuration``, ``package_version`` and ``schema_version``, as JSON values."""
        self.map_shape: tuple[int, int] = head.map_shape
        """(H, W) of every map."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._stored_table)

    def close(self) -> None:
        """Close the file; table and provenance stay available."""
        self._file.close()

    @cached_property
    def rows(self) -> list[MapRow]:
        """The N rows of the table; ShardError when text in it is no UTF-8."""
        try:
            return [decode_row(record) for record in self._stored_table]
        except UnicodeDecodeError as error:
            raise ShardError(f"{self._path}: the table holds text that is no UTF-8 ({error})") from error

    @cached_property
    def table(self) -> npt.NDArray[Any]:
        """(N,) structured array with the columns of ``/images``, strings as numpy ``U``."""
        stored = self._stored_table
        fields: list[tuple[str, Any]] = []
        columns: dict[str, npt.NDArray[Any]] = {}
        for name in stored.dtype.names or ():
            column = stored[name]
            if name in STRING_FIELDS:
                try:
                    column = np.char.decode(column, "utf-8")
                except UnicodeDecodeError as error:
                    raise ShardError(f"{self._path}: column {name} is no UTF-8 ({error})") from error
            columns[name] = column
            fields.append((name, column.dtype))
        table = np.empty(len(stored), dtype=fields)
        for name, column in columns.items():
            table[name] = column
        return table

    def read_uint8(self, row: int) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 as stored: 255 at the peak; all zero for a row whose status is not ok.

        Raises
        ------
        IndexError
            ``row`` outside ``0 <= row < N``.
        ShardError
            The map is damaged: the checksum is compared on every read.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"{self._path}: row {row}, expected 0 <= row < {len(self)}")
        return self._file.read_map(row, places=self._places, map_shape=self.map_shape)

    def read(self, row: int, *, map_scale: str) -> npt.NDArray[np.float32]:
        """(H, W) float32 of one row.

        Parameters
        ----------
        row
            ``0 <= row < N``.
        map_scale
            ``"peak"``: ``stored / 255``, so the maximum is 1. ``"true"``: ``stored / 255 * peak``, the map
            before it was scaled, up to half a step of ``peak / 255``.

        Raises
        ------
        IndexError, ShardError
            As ``read_uint8``.
        ValueError
            Another ``map_scale``.
        """
        peak = float(self._stored_table["peak"][row]) if 0 <= row < len(self) else 0.0
        return scale_map(self.read_uint8(row), peak=peak, map_scale=map_scale)


def compress_map(map_hw_uint8: npt.NDArray[np.uint8]) -> bytes:
    """A (H, W) uint8 map as the chunk that a shard stores: zlib's bytes, then their Fletcher-32."""
    return append_checksum(zlib.compress(map_hw_uint8.tobytes(), GZIP_LEVEL))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
