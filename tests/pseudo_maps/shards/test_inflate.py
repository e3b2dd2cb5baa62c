import os
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo_maps.shards import inflate as inflate_module
from pseudo_maps.shards.inflate import InflateError, inflate

DATA = bytes(range(256)) * 20
STREAM = zlib.compress(DATA, 4)


@pytest.fixture(params=["zlib", "zlib_ng.zlib_ng"])
def library(request, monkeypatch):
    found = pytest.importorskip(request.param)
    monkeypatch.setattr(inflate_module, "_library", found)
    assert inflate_module.inflate_library() == found.__name__
    return found


@given(data=st.binary(max_size=2000), level=st.integers(0, 9), size_bytes=st.integers(1, 3000))
def test_whatever_zlib_compressed_comes_back(data, level, size_bytes):
    assert inflate(memoryview(zlib.compress(data, level)), size_bytes=size_bytes) == data


@pytest.mark.parametrize("size_bytes", [1, len(DATA), 10 * len(DATA)])
def test_the_expected_size_is_a_hint(library, size_bytes):
    assert inflate(STREAM, size_bytes=size_bytes) == DATA
    assert inflate(STREAM + b"more", size_bytes=size_bytes) == DATA


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (STREAM[:-1], "incomplete or truncated"),
        (b"", "incomplete or truncated"),
        (STREAM[:-1] + bytes([STREAM[-1] ^ 1]), "incorrect data check"),
        (b"no stream at all", "incorrect header check"),
    ],
)
def test_damage_is_one_error_whichever_library_finds_it(library, damaged, message):
    with pytest.raises(InflateError, match=message):
        inflate(damaged, size_bytes=len(DATA))


def library_in_a_new_process(code):
    program = f"import sys; {code}; from pseudo_maps.shards import inflate as i; print(i.inflate_library())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    return result.stdout.strip()


def test_zlib_stands_in_where_zlib_ng_is_missing():
    assert library_in_a_new_process("sys.modules['zlib_ng'] = None") == "zlib"


def test_zlib_ng_is_used_where_it_is_installed():
    pytest.importorskip("zlib_ng")
    assert library_in_a_new_process("pass") == "zlib_ng.zlib_ng"
