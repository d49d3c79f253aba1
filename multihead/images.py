"""Photos as upright RGB uint8 arrays: one decoder for training, faces and prediction, so that boxes fit the pixels."""

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile

from multihead.files import replace_file

MAX_PIXELS = 178_956_970  # where Pillow itself refuses: twice its warning limit

_DECODED = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"}
# HEIC is listed though it cannot be decoded: an iPhone folder then reports its photos instead of looking empty.
SUFFIXES = frozenset(_DECODED | {".heic", ".heif"})

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
)

# The EXIF value -> what turns the stored pixels upright (EXIF 2.3, table 6).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

_WARNINGS = threading.Lock()


class ImageError(ValueError):
    """A photo that cannot be read: the message names the file (or says what it was) and what is wrong with it."""


def read_image(
    source: str | os.PathLike | bytes | np.ndarray | Image.Image, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Pixels (H, W, 3), uint8, RGB, contiguous, upright by the photo's own EXIF orientation.

    Transparent parts become white, as a viewer or a page shows them; dropping alpha would bring up hidden colours,
    mostly black. 16-bit samples keep their high byte, as Pillow does it. Animations give their first frame.

    Args:
        source: a path, the bytes of a file, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) RGB or
            (H, W, 4) RGBA of uint8, uint16, bool, or float in 0..1. A fitting uint8 array is returned as it is.
        max_pixels: the largest width * height, judged by the file's header before anything is decoded.

    Raises:
        ImageError: the source is missing, empty, truncated, too large or no image.

    >>> read_image(np.zeros((2, 5), np.uint16)).shape
    (2, 5, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _guarded(lambda: _from_pillow(source, max_pixels), "Pillow image")
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), f"{len(source)} bytes"
    elif isinstance(source, str | os.PathLike):
        data, name = _file_bytes(Path(source)), repr(os.fspath(source))
    else:
        raise ImageError(f"expected a path, bytes, an array or a Pillow image, got {type(source).__name__}")
    return _guarded(lambda: _decode(data, max_pixels), name)


def is_image_name(path: str | os.PathLike) -> bool:
    """True when the name ends like an image's and does not begin with a dot (macOS leaves `._a.jpg` twins).

    >>> is_image_name("A.JPG"), is_image_name("._A.JPG")
    (True, False)
    """
    name = os.path.basename(os.fspath(path))
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def image_files(folder: str | os.PathLike) -> list[Path]:
    """Every image file under a folder, sorted, by its name alone: broken ones are kept, to be reported when read.

    Names that begin with a dot are left out at every level; linked folders are followed once.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: a folder cannot be listed.

    >>> image_files("data")  # doctest: +SKIP
    [PosixPath('data/a.jpg'), PosixPath('data/b/c.PNG')]
    """
    files = [path for path in _walk(Path(folder), set()) if is_image_name(path)]
    return sorted(files)


def write_jpeg(image: np.ndarray, path: str | os.PathLike, quality: int = 95) -> None:
    """Write RGB pixels (H, W, 3) uint8 as a JPEG; the file appears whole or not at all, folders are made.

    Args:
        quality: 1..100; below 95 the wrinkles go that carry the age.

    Raises:
        ImageError: the array is not RGB uint8, is empty, or is longer than the 65,500 pixels a JPEG can hold.

    >>> write_jpeg(np.zeros((8, 8, 3), np.uint8), "new/folder/black.jpg")  # doctest: +SKIP
    """
    path = Path(path)
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        raise ImageError(f"{str(path)!r}: expected RGB uint8 (H, W, 3), got {_kind(image)}; use read_image first")
    if not (min(image.shape[:2]) > 0 and max(image.shape[:2]) <= 65_500):
        raise ImageError(f"{str(path)!r}: a JPEG holds sides of 1 to 65500 pixels, got {_kind(image)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"expected quality 1..100, got {quality!r}")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    replace_file(path, lambda fresh: fresh.write_bytes(data.tobytes()))


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, seen)
            else:
                yield folder / entry.name


def _file_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{str(path)!r}: is a folder; image_files lists what is in it")
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            raise ImageError(f"{str(path)!r}: not a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError(f"{str(path)!r}: broken link to {os.readlink(path)!r}") from None
        raise ImageError(f"{str(path)!r}: no such file") from None
    except OSError as error:
        raise ImageError(f"{str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{str(path)!r}: not a file name ({error})") from error  # a NUL byte


def _guarded(decode: Callable[[], np.ndarray], name: str) -> np.ndarray:
    """What decode() gives; hostile files make the decoders raise anything, and all of it becomes an ImageError."""
    try:
        return decode()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: damaged image ({error or type(error).__name__})") from error


def _decode(data: bytes, max_pixels: int) -> np.ndarray:
    format = next((name for at, mark, name in _SIGNATURES if data.startswith(mark, at)), None)
    if format == "JPEG":
        return _decode_jpeg(data, max_pixels)
    if format == "HEIC":
        raise ImageError("HEIC is not supported; convert it to JPEG")
    if format is None:
        raise ImageError(_not_an_image(data))
    return _decode_pillow(data, format, max_pixels)


def _not_an_image(data: bytes) -> str:
    if not data:
        return "empty file"
    if not any(data[:4096]):
        return "not an image (only zeros; an unfinished copy?)"
    head = data[:512]
    text = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head) and head.isascii()
    return f"not an image ({'text?' if text else 'unknown format'}), it begins {head[:16]!r}"


class _Jpeg(NamedTuple):
    height: int
    width: int
    components: int
    exif: bytes
    scan: int  # where the compressed data begins


def _jpeg_header(data: bytes) -> _Jpeg:
    """The frame's size and the EXIF block, by walking the segments (ITU T.81, annex B)."""
    frame: tuple[int, int, int] | None = None
    exif, at = b"", 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ImageError("damaged JPEG header")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xDA and frame:
            height, width, components = frame
            return _Jpeg(height, width, components, exif, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            frame = struct.unpack_from(">HHB", data, at + 5)
        if marker == 0xE1 and not exif and data.startswith(b"Exif\0\0", at + 4):
            exif = data[at + 4 : at + 2 + length]
        at += 2 + length
    raise ImageError("truncated JPEG")


def _decode_jpeg(data: bytes, max_pixels: int) -> np.ndarray:
    header = _jpeg_header(data)
    _check_size(header.width, header.height, max_pixels)
    # Compressed data cannot hold the end marker. Without one the file was cut: older OpenCV and a Pillow told to
    # accept truncated files would paint the rest grey.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise ImageError("truncated JPEG")
    image = _imdecode(data) if header.components in (1, 3) else None  # OpenCV gets CMYK and YCCK wrong
    if image is None:
        with _silence():
            image = _pillow_pixels(_pillow_class("JPEG")(io.BytesIO(data)))
    return _upright(image, _orientation(header.exif))


def _imdecode(data: bytes) -> np.ndarray | None:
    stored = np.frombuffer(data, np.uint8)
    if hasattr(cv2, "IMREAD_COLOR_RGB"):
        return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.imdecode(stored, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # opencv < 4.11
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_pillow(data: bytes, format: str, max_pixels: int) -> np.ndarray:
    # The format's own class, not Image.open: that one warns of size by itself and tries formats that run programs.
    with _silence() if format == "TIFF" else nullcontext():
        return _from_pillow(_pillow_class(format)(io.BytesIO(data)), max_pixels)


def _pillow_class(format: str) -> type[ImageFile.ImageFile]:
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    if format == "AVIF":
        try:
            from PIL import AvifImagePlugin
        except ImportError:
            raise ImageError("AVIF needs pillow >= 11.3; update it or convert the photo to JPEG") from None
        return AvifImagePlugin.AvifImageFile
    classes = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
    }
    return classes[format]


@contextmanager
def _silence() -> Iterator[None]:
    """No warning of corrupt tags; for rare formats only, as warning filters are shared by all threads."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _from_pillow(image: Image.Image, max_pixels: int) -> np.ndarray:
    _check_size(*image.size, max_pixels)
    pixels = _pillow_pixels(image)
    # After loading, as a PNG's EXIF may stand behind the pixels; a TIFF is turned by Pillow and keeps none.
    return _upright(pixels, _orientation(image.info.get("exif", b"")))


def _pillow_pixels(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"))
    if image.mode.startswith("I"):  # I;16, I;16B and I: 16-bit samples, which convert("L") would clip at 255
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if image.mode == "F":
        return _from_array(np.asarray(image))
    return np.array(image.convert("RGB"))


def _from_array(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ImageError(f"expected an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {_kind(image)}")
    image = _to_uint8(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)  # (H, W, 3)
    if image.shape[2] == 4:
        return _pillow_pixels(Image.fromarray(np.ascontiguousarray(image), "RGBA"))
    return np.ascontiguousarray(image)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype == bool:
        return image * np.uint8(255)
    if image.dtype.kind != "f":
        raise ImageError(f"expected uint8, uint16, bool or float in 0..1, got {_kind(image)}")
    low, high = image.min(), image.max()
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN fails both
        raise ImageError(f"expected floats in 0..1, got {low:g}..{high:g}; divide by 255, or pass uint8")
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _orientation(exif: bytes) -> int:
    """The EXIF orientation 1..8, or 1 where the block does not say or is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    return image if orientation == 1 else np.ascontiguousarray(_UPRIGHT[orientation](image))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"damaged image: {width}x{height} pixels")
    if width * height > max_pixels:
        raise ImageError(f"too large: {width}x{height} is more than {max_pixels} pixels; raise max_pixels to read it")


def _kind(image: object) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
