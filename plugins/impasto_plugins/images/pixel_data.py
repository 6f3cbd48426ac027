"""Damage to an image's pixel data that no length or checksum of its file shows. Decodes, so run it in a thread.

A PNG whose rows are missing is found by inflating it. JPEG and WebP have no checksum, and their decoders report
no damage, so parts of the file are replaced by noise before it is decoded: noise behind the last block of a whole
JPEG changes no pixel, and noise in its place changes one if the pixels are really made of a long run of zero bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 2**24
"""Pixels of the largest image that is decoded: 4096x4096, more than any model takes."""

DECODING = threading.RLock()
"""Held while an image is decoded at full size: one at a time in a process, because each takes many megabytes."""

_MAX_BYTES = 64 * 2**20
"""Memory that a check may take. Images that need more are not decoded for it."""

_BYTES_PER_PIXEL = {"image/jpeg": 10, "image/webp": 20}
"""Memory of Pillow and its decoder for a pixel at full size: 6.5 and 17.7 were measured; and a copy of the file."""

_WINDOW = 64 * 1024
_MAX_STEPS = 100_000
_ZEROS = bytes(1024)
"""A run of zero bytes that is long enough to be suspicious. Flat images have them too, so it proves nothing alone."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG: the first column and row, and the steps to the next ones."""

_HUFFMAN_8_BITS = frozenset({0xC0, 0xC1, 0xC2})
"""Frames that are judged: Huffman codes. Arithmetic coders may omit their last zero bytes, which the check needs."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
_SCAN, _END = 0xDA, 0xD9
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_GREY = frozenset({127, 128})
"""The value of a block without data in each channel: inverted CMYK has 127."""


class PngRows:
    """Count the bytes of a PNG's rows as its IDAT chunks are read. Stores none of them.

    ``missing`` is the number of bytes that have not come yet.
    """

    def __init__(self, header: bytes) -> None:
        """Take the 13 bytes of IHDR."""
        self.missing = _bytes_of_rows(header)
        self._zlib_header = b""
        # Without zlib's checksum, which takes most of the time: the chunks have their own.
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def feed(self, piece: bytes) -> bool:
        """Return False if the data can't be inflated. Data after the last row are not read."""
        if (left := 2 - len(self._zlib_header)) > 0:
            self._zlib_header += piece[:left]
            piece = piece[left:]
            if len(self._zlib_header) == 2 and not _is_zlib(self._zlib_header):
                return False
        try:
            while self.missing > 0:
                # At most a window at a time: a bomb of some bytes inflates to gigabytes.
                rows = self._inflate.decompress(piece, _WINDOW)
                self.missing -= len(rows)
                piece = self._inflate.unconsumed_tail
                if not piece and len(rows) < _WINDOW:
                    break
        except zlib.error:
            return False
        return True


def jpeg_has_all_blocks(source: BinaryIO) -> bool:
    """Return False if the data of a JPEG end before its last block, or have zeros in place of data.

    Files that can't be judged pass: arithmetic coders, other than 8 bits, too many pixels.

    Raises:
        OSError: the file can't be read.
    """
    jpeg = _read_jpeg(source)
    if jpeg is None or jpeg.process not in _HUFFMAN_8_BITS or jpeg.bits != 8:
        return True
    at_full_size = jpeg.process == _PROGRESSIVE  # decoding at a smaller size reads the first scans only

    def decode(look: Callable[[ImageFile], int], start: int = jpeg.end, noise: bytes = b"") -> int | None:
        """Decode the file with noise at ``start``: after the data if it is their end, otherwise in place of them."""
        from PIL import JpegImagePlugin

        stop = start if start == jpeg.end else start + len(noise)
        pieces = (jpeg.tables, range(jpeg.first_scan, start), noise, range(stop, jpeg.end), b"\xff\xd9")
        return _decode(JpegImagePlugin.JpegImageFile, source, pieces, look, at_full_size=at_full_size)

    with _room_for(jpeg.pixels, "image/jpeg", at_full_size=at_full_size) as has_room:
        if not has_room:
            return True
        try:
            # Missing blocks decode to grey, so a last block of another colour has its data. That is quick to see.
            if not jpeg.is_one_scan or decode(_is_grey_at_its_end) is not False:
                # Noise after the data of all blocks is ignored; if blocks are missing, they are made of it.
                plain = decode(_digest)
                if plain is None or plain != decode(_digest, noise=_noise_with_restarts()):
                    return False
            if jpeg.zeros is None or jpeg.zeros < jpeg.last_scan:
                return True
            if jpeg.process == _PROGRESSIVE:
                return jpeg.has_all_scans  # no encoder omits scans, and a disk that loses data does
            if not jpeg.is_one_scan or decode(_is_uniform):
                return True
            # Noise in place of zeros that were written by an encoder changes their pixels.
            return decode(_digest) != decode(_digest, jpeg.zeros - len(_noise()), _noise())
        except _UnreadableError:
            return True


def webp_has_all_pixels(source: BinaryIO, start: int, size: int, pixels: int) -> bool:
    """Return False if the frame at ``start`` has a long run of zeros in place of data, or can't be decoded.

    Frames without such a run pass and are not decoded.

    Raises:
        OSError: the file can't be read.
    """
    source.seek(start)
    zeros, left = None, size
    while left and (piece := source.read(min(left, _WINDOW))):
        zeros = _end_of_zeros(piece, start + size - left, zeros)
        left -= len(piece)
    if zeros is None:
        return True

    def decode(noise: bytes = b"") -> int | None:
        from PIL import WebPImagePlugin

        pieces = (range(zeros - len(noise)), noise, range(zeros, source.seek(0, io.SEEK_END)))
        return _decode(WebPImagePlugin.WebPImageFile, source, pieces, _digest, at_full_size=True)

    with _room_for(pixels, "image/webp", at_full_size=True) as has_room:
        if not has_room:
            return True
        try:
            plain = decode()
            return plain is not None and plain != decode(_noise())
        except _UnreadableError:
            return True


def _is_zlib(header: bytes) -> bool:
    """Return True for the first two bytes of a zlib stream without a dictionary (RFC 1950, 2.2)."""
    method, flags = header
    return method & 0x0F == 8 and method >> 4 <= 7 and not flags & 0x20 and int.from_bytes(header) % 31 == 0


def _bytes_of_rows(header: bytes) -> int:
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    if width * height > MAX_PIXELS:
        return 0  # not judged: inflating takes too long
    bits = header[8] * _CHANNELS.get(header[9], 0)
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    sides = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sides if columns > 0)


class _Jpeg(NamedTuple):
    """Facts from the headers, and positions in the file.

    ``tables``: all segments before the first scan that decoding needs. ``end``: after the data of the last scan.
    ``zeros``: after the last long run of zeros.
    ``is_one_scan``: one scan has all components. ``has_all_scans``: every bit of every coefficient has its scan, which
    a progressive JPEG need not have.
    """

    process: int
    bits: int
    pixels: int
    is_one_scan: bool
    has_all_scans: bool
    tables: bytes
    first_scan: int
    last_scan: int
    end: int
    zeros: int | None


def _read_jpeg(source: BinaryIO) -> _Jpeg | None:
    """Read from marker to marker up to the end of the first image; None if a marker is missing."""
    source.seek(2)
    frame, tables = b"", b"\xff\xd8"
    process = first_scan = last_scan = 0
    scans: list[bytes] = []
    zeros: int | None = None
    for _ in range(_MAX_STEPS):
        marker = source.read(2)
        if marker == b"\xff\xff":
            source.seek(-1, io.SEEK_CUR)
            continue
        if len(marker) < 2 or marker[0] != 0xFF:
            return None
        kind = marker[1]
        if kind == _END:
            if len(frame) < 6 or not scans:
                return None
            return _Jpeg(
                process=process,
                bits=frame[0],
                pixels=int.from_bytes(frame[1:3]) * int.from_bytes(frame[3:5]),
                is_one_scan=process != _PROGRESSIVE and len(scans) == 1 and scans[0][0] == frame[5],
                has_all_scans=len(_finished_coefficients(scans)) >= 64 * frame[5],
                tables=tables,
                first_scan=first_scan,
                last_scan=last_scan,
                end=source.tell() - 2,
                zeros=zeros,
            )
        if kind in _ALONE:
            continue
        length = source.read(2)
        segment = source.read(max(int.from_bytes(length) - 2, 0))
        if kind in _FRAMES:
            process, frame = kind, segment
        elif kind == _SCAN:
            if not segment or len(segment) < 4 + 2 * segment[0]:
                return None
            scans.append(segment)
            first_scan = first_scan or source.tell() - len(segment) - 4
            last_scan = source.tell()
            zeros = _skip_scan(source, zeros)
        if not scans and kind not in _METADATA:
            tables += marker + length + segment
    return None


def _finished_coefficients(scans: list[bytes]) -> set[tuple[int, int]]:
    """Return the components and coefficients whose last bit was sent."""
    finished: set[tuple[int, int]] = set()
    for scan in scans:
        components = scan[1 : 1 + 2 * scan[0] : 2]
        first, last, bits = scan[1 + 2 * scan[0] :][:3]
        if bits & 0x0F == 0:
            finished.update((component, each) for component in components for each in range(first, min(last, 63) + 1))
    return finished


def _skip_scan(source: BinaryIO, zeros: int | None) -> int | None:
    """Stop at the marker after a scan's data. Return the end of the last long run of zeros, ``zeros`` if none."""
    while piece := source.read(_WINDOW):
        at = source.tell() - len(piece)
        if match := _MARKER.search(piece):
            source.seek(at + match.start())
            return _end_of_zeros(piece[: match.start()], at, zeros)
        if piece.endswith(b"\xff") and len(piece) > 1:  # a marker may cross two windows
            source.seek(-1, io.SEEK_CUR)
        zeros = _end_of_zeros(piece, at, zeros)
    return zeros


def _end_of_zeros(piece: bytes, at: int, zeros: int | None) -> int | None:
    """Return the place after the last long run of zeros in a piece of a file, ``zeros`` if it has none."""
    start = piece.find(_ZEROS)
    while start >= 0:
        end = len(piece) - len(piece[start:].lstrip(b"\0"))
        zeros = at + end
        start = piece.find(_ZEROS, end)
    return zeros


@contextmanager
def _room_for(pixels: int, media_type: str, *, at_full_size: bool) -> Iterator[bool]:
    """Wait for the turn to decode at full size. Yield False if the image is too large to be decoded for a check."""
    if not at_full_size:
        yield pixels <= MAX_PIXELS
    elif pixels * _BYTES_PER_PIXEL[media_type] > _MAX_BYTES:
        yield False
    else:
        with DECODING:
            yield True


class _UnreadableError(Exception):
    """Pillow can't open an image. This is no sign of damage, because it does not know all forms."""


def _decode(
    reader: Callable[[BinaryIO], ImageFile],
    source: BinaryIO,
    pieces: Sequence[range | bytes],
    look: Callable[[ImageFile], int],
    *,
    at_full_size: bool,
) -> int | None:
    """Return ``look`` of the image in a file that is made of pieces; None if its pixels can't be decoded."""
    try:
        image = reader(io.BufferedReader(_Pieces(source, pieces), _WINDOW))
    except Exception as error:  # Pillow raises errors of many classes for a damaged header
        raise _UnreadableError from error
    with image:
        if not at_full_size:
            image.draft(None, (1, 1))  # an eighth of each side: a pixel for each block
        try:
            return look(image)
        except (OSError, SyntaxError, ValueError, EOFError, IndexError):
            return None


class _Pieces(io.RawIOBase):
    """A file made of parts of another file and of bytes. Nothing is copied for it."""

    def __init__(self, source: BinaryIO, pieces: Sequence[range | bytes]) -> None:
        self._source, self._pieces = source, pieces
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(map(len, self._pieces))}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        at = self._at
        for piece in self._pieces:
            if at < len(piece):
                part = piece[at : at + len(view)]
                if isinstance(part, range):
                    self._source.seek(part.start)
                    part = self._source.read(len(part))
                view[: len(part)] = part
                self._at += len(part)
                return len(part)
            at -= len(piece)
        return 0


def _noise(seed: int = 0) -> bytes:
    """Return bytes that decode to blocks of no image, without a marker among them; the same each time for a seed."""
    return hashlib.shake_128(bytes((seed,))).digest(len(_ZEROS) // 2).replace(b"\xff", b"\x7f")


def _noise_with_restarts() -> bytes:
    """Return noise, and other noise for each restart interval: the same might decode to nothing."""
    return _noise() + b"".join(bytes((0xFF, 0xD0 + each % 8)) + _noise(each) for each in range(32))


def _digest(image: ImageFile) -> int:
    """Return a number that differs if any pixel does. Works strip by strip: the whole would be a second copy."""
    width, height = image.size
    digest = 0
    for top in range(0, height, 64):
        digest = zlib.crc32(image.crop((0, top, width, min(top + 64, height))).tobytes(), digest)
    return digest


def _is_grey_at_its_end(image: ImageFile) -> bool:
    """Return True if the last block may be one without data."""
    width, height = image.size
    pixel = image.getpixel((width - 1, height - 1))
    return _GREY.issuperset(pixel if isinstance(pixel, tuple) else (pixel,))


def _is_uniform(image: ImageFile) -> bool:
    """Return True if all pixels are alike: then zeros, noise and no data at all may decode to the same."""
    return image.getcolors(1) is not None
