import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pseudo_maps.shards.fletcher32 import append_checksum, fletcher32


def folded_sums(data):
    """The checksum word by word, folding after every addition."""

    def fold(value):
        while value > 0xFFFF:
            value = (value & 0xFFFF) + (value >> 16)
        return value

    first = second = 0
    for start in range(0, len(data), 2):
        low = data[start + 1] if start + 1 < len(data) else 0
        first = fold(first + (data[start] << 8 | low))
        second = fold(second + first)
    return second << 16 | first


def checksum_by_hdf5(data):
    """Let HDF5 store ``data`` with its filter and read the four bytes it appended."""
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=np.frombuffer(data, np.uint8), chunks=(len(data),), fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))
    assert stored[: len(data)] == data
    return int.from_bytes(stored[len(data) :], "little")


def test_hand_computed_words():
    # Words 0x0102, 0x0304: first 0x0406; second 0x0102 + 0x0406 = 0x0508.
    assert fletcher32(b"\x01\x02\x03\x04") == 0x05080406
    # An odd last byte is the high half of a word: 0x0102, 0x0300.
    assert fletcher32(b"\x01\x02\x03") == 0x05040402
    assert fletcher32(b"") == 0
    assert fletcher32(b"\xff\xff") == 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=600))
@example(b"\0" * 5)
@example(b"\xff" * 8)
@example(b"\xff\xfe\x00\x01")
@settings(deadline=None)
def test_equals_hdf5_and_word_by_word_sums(data):
    assert fletcher32(data) == folded_sums(data) == checksum_by_hdf5(data)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe" * 70_000, np.random.default_rng(0).integers(0, 256, 300_001).astype(np.uint8).tobytes()]
)
def test_sums_of_many_words_do_not_overflow(data):
    assert fletcher32(data) == folded_sums(data)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_every_change_of_one_byte_shows(data, draw):
    position = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[position] ^= draw.draw(st.integers(1, 255))
    assert fletcher32(bytes(changed)) != fletcher32(data)


def test_hdf5_accepts_an_appended_checksum():
    data = np.arange(51, dtype=np.uint8)
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", (51,), "u1", chunks=(51,), fletcher32=True)
        dataset.id.write_direct_chunk((0,), append_checksum(data.tobytes()))
        np.testing.assert_array_equal(dataset[()], data)
