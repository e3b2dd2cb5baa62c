"""HDF5 shards of saliency maps: writer, reader, index, manifest and verification. The format: SHARD_FORMAT.md."""

from pseudo_maps.files import file_sha256
from pseudo_maps.shards.index import MapIndex
from pseudo_maps.shards.layout import (
    SCHEMA_VERSION,
    STATUS_OK,
    STATUS_TIMEOUT,
    STATUSES_OF_LOST_PROCESSES,
    MapRow,
    ShardError,
    list_shards,
    make_provenance,
    parse_shard_name,
    quantise_map,
    shard_name,
)
from pseudo_maps.shards.reader import ShardReader
from pseudo_maps.shards.writer import ShardWriter, compress_map

__all__ = [
    "SCHEMA_VERSION",
    "STATUSES_OF_LOST_PROCESSES",
    "STATUS_OK",
    "STATUS_TIMEOUT",
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
