"""What a photo's header says before anything is decoded: a JPEG's size and colours, and how EXIF turns a photo."""

import struct
from typing import NamedTuple


class HeaderError(ValueError):
    """A header that is damaged, or ends too soon."""


class Jpeg(NamedTuple):
    """A JPEG's frame, its EXIF block, and where the compressed data begins."""

    height: int
    width: int
    components: int
    exif: bytes
    scan: int


def jpeg_header(data: bytes) -> Jpeg:
    """The frame's size and the EXIF block, by walking the segments (ITU T.81, annex B). Raises: HeaderError."""
    frame: tuple[int, int, int] | None = None
    exif, at = b"", 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise HeaderError("damaged JPEG header")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xDA and frame:
            height, width, components = frame
            return Jpeg(height, width, components, exif, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            frame = struct.unpack_from(">HHB", data, at + 5)
        if marker == 0xE1 and not exif and data.startswith(b"Exif\0\0", at + 4):
            exif = data[at + 4 : at + 2 + length]
        at += 2 + length
    raise HeaderError("truncated JPEG")


def orientation(exif: bytes) -> int:
    """The EXIF orientation 1..8, or 1 where the block does not say or is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == 0x0112 and kind in (3, 4):  # two bytes, as the standard says, or four
                (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", exif, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
