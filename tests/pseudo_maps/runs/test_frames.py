import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo_maps.runs.frames import DamagedFrame, FrameBuffer, encode_frame, intact_frames

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
FRAMES = st.lists(st.tuples(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.binary(max_size=50)), max_size=5)


@given(FRAMES, st.integers(1, 40))
def test_frames_come_back_whatever_the_pieces_of_the_stream(frames: list[tuple[dict, bytes]], piece_bytes: int) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    buffer, found = FrameBuffer(), []
    for start in range(0, len(stream), piece_bytes):
        buffer.feed(stream[start : start + piece_bytes])
        while (frame := buffer.next_frame()) is not None:
            found.append(frame)
    assert found == frames == list(intact_frames(stream))


def test_file_names_that_are_no_utf8_come_back() -> None:
    header = {"path": b"caf\xe9.jpg".decode("utf-8", "surrogateescape")}
    assert list(intact_frames(encode_frame(header))) == [(header, b"")]


def test_a_stream_cut_off_anywhere_gives_the_frames_before_the_cut() -> None:
    frames = [({"n": number}, bytes([number] * 10)) for number in range(3)]
    parts = [encode_frame(*frame) for frame in frames]
    stream = b"".join(parts)
    for length in range(len(stream)):
        whole = sum(len(b"".join(parts[: count + 1])) <= length for count in range(3))
        assert list(intact_frames(stream[:length])) == frames[:whole]


def test_no_changed_byte_goes_unnoticed() -> None:
    first, second = encode_frame({"n": 1}, b"abc"), encode_frame({"n": 2}, b"def")
    for position in range(len(second)):
        changed = bytearray(second)
        changed[position] ^= 0x10
        assert list(intact_frames(first + changed)) == [({"n": 1}, b"abc")]


def test_damage_in_a_pipe_is_an_error_not_a_wait() -> None:
    buffer = FrameBuffer()
    buffer.feed(b"Traceback (most recent call last)")
    with pytest.raises(DamagedFrame):
        buffer.next_frame()


def test_more_frames_than_one_piece_of_reading() -> None:
    frames = [({"n": number}, bytes(30_000)) for number in range(12)]
    assert list(intact_frames(b"".join(encode_frame(*frame) for frame in frames))) == frames
