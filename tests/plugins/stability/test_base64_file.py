"""Base64 within a file: read in any order and any pieces, it is what was encoded."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given, strategies as st

from impasto import File
from impasto_plugins.stability import base64_file
from impasto_plugins.stability.base64_file import decode_part


@given(data=st.binary(max_size=60), reads=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 70)), max_size=6))
def test_decoded_base64_reads_like_a_file(data: bytes, reads: list[tuple[int, int]]) -> None:
    text = base64.b64encode(data)
    file = decode_part(File.of(b'["' + text + b'"]'), 2, 2 + len(text))
    assert (file.size, file.read()) == (len(data), data)
    with file.open() as source:
        for at, size in reads:
            assert source.seek(at) == at
            assert source.read(size) == data[at : at + size]
        assert source.seek(-len(data), io.SEEK_END) == 0


@pytest.mark.parametrize(
    "text", [b"AAA", b"AAA=AAAA", b"AA==AAAA", b"AA A", b"AAA\n", b"AA-_", b"A\xff==", b"AAAA=", b"=", b"AAAAAAAAAAA"]
)
def test_invalid_base64_is_an_error_before_it_is_read(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    for piece in (4, 1 << 18):
        monkeypatch.setattr(base64_file, "PIECE", piece)
        monkeypatch.setattr(base64_file, "_BUFFER", piece // 4 * 3)
        with pytest.raises(ValueError, match="(?i)padding|base64"):
            decode_part(File.of(text), 0, len(text))
