"""From the bytes of a photo, or pixels of another kind, to upright RGB uint8, whole or at a fraction of the size."""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import cv2
import numpy as np
from PIL import Image, ImageFile

from multihead.headers import HeaderError, Jpeg, jpeg_header, orientation

REDUCTIONS = (1, 2, 4, 8)  # how much smaller a JPEG's own transform lets it be decoded

_SIGNATURES = (
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


class Encoded:
    """A photo that is decoded when asked, at the size that is needed; made by `multihead.images.open_image`.

    size: (height, width) of the upright photo in full. name: what errors call it. backwards: whether its rows, and its
    columns, are stored last first.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        decode: Callable[[int], np.ndarray],
        backwards: tuple[bool, bool] = (False, False),
    ) -> None:
        self.name, self.size, self.backwards = name, size, backwards
        self._decode = decode
        self._last: tuple[int, np.ndarray] | None = None

    def pixels(self, reduction: int = 1) -> np.ndarray:
        """RGB uint8 (H, W, 3), upright, of a JPEG decoded at 1/reduction, sides rounded up; other formats know no
        reduction and come in full. The last decode is kept.

        Raises: ImageError where the photo is damaged; ValueError for a reduction other than 1, 2, 4 or 8.
        """
        if reduction not in REDUCTIONS:
            raise ValueError(f"expected reduction to be one of {REDUCTIONS}, got {reduction!r}")
        if self._last is None or self._last[0] != reduction:
            self._last = (reduction, guarded(lambda: self._decode(reduction), self.name))
        return self._last[1]

    def lead(self, reduction: int) -> tuple[int, int]:
        """How many rows and columns of the full photo a decode at 1/reduction begins before it: its squares of pixels
        are counted from the side that is stored first, and the last of them may reach over the edge."""
        high, wide = (-side % reduction if last_first else 0 for side, last_first in zip(self.size, self.backwards))
        return high, wide

    def forget(self) -> None:
        """Keep no decode any longer."""
        self._last = None

    @property
    def held(self) -> int:
        """How many decoded pixels it keeps."""
        return 0 if self._last is None else self._last[1].shape[0] * self._last[1].shape[1]


def encoded(data: bytes, name: str, max_pixels: int) -> Encoded:
    """The photo of a file's bytes; what is no JPEG is decoded here and now.

    Raises: ImageError where it is no image, truncated, damaged or larger than max_pixels.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return decoded(guarded(lambda: _decode(data, max_pixels), name), name)
    try:
        header = jpeg_header(data)
        _check_size(header.width, header.height, max_pixels)
        # Compressed data cannot hold the end marker. Without one the file was cut: older OpenCV and a Pillow told to
        # accept truncated files would paint the rest grey.
        if data.rfind(b"\xff\xd9", header.scan) < 0:
            raise ImageError("truncated JPEG")
    except (ImageError, HeaderError) as error:
        raise ImageError(f"{name}: {error}") from None
    turned = orientation(header.exif)
    size = (header.width, header.height) if turned >= 5 else (header.height, header.width)  # turned by a quarter
    backwards = turned in (3, 4, 7, 8), turned in (2, 3, 6, 7)
    return Encoded(name, size, lambda reduction: _decode_jpeg(data, header, reduction), backwards)


def decoded(image: np.ndarray, name: str) -> Encoded:
    """The photo of RGB pixels (H, W, 3) that are there already."""
    photo = Encoded(name, image.shape[:2], lambda reduction: image)
    photo.pixels()
    return photo


def guarded(decode: Callable[[], np.ndarray], name: str) -> np.ndarray:
    """What decode() gives; hostile files make the decoders raise anything, and all of it becomes an ImageError."""
    try:
        return decode()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: damaged image ({_told(error)})") from error


def _told(error: Exception) -> str:
    """What a decoder says is wrong; plain words where it says nothing, or stumbled over bytes that it had not checked:
    Pillow makes a SyntaxError of its own errors of lengths, keys and types."""
    found = error.__cause__ if isinstance(error, SyntaxError) and error.__cause__ else error
    meant = isinstance(found, (OSError, SyntaxError, ValueError, RuntimeError))
    return str(error) if meant and str(error) else "it was cut short, or overwritten in part"


def _decode(data: bytes, max_pixels: int) -> np.ndarray:
    format = next((name for at, mark, name in _SIGNATURES if data.startswith(mark, at)), None)
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


def _decode_jpeg(data: bytes, header: Jpeg, reduction: int) -> np.ndarray:
    image = _imdecode(data, reduction) if header.components in (1, 3) else None  # OpenCV gets CMYK and YCCK wrong
    if image is None:
        with _silence():
            image = _pillow_pixels(_pillow_class("JPEG")(io.BytesIO(data)))
    return _upright(image, orientation(header.exif))


def _imdecode(data: bytes, reduction: int) -> np.ndarray | None:
    stored = np.frombuffer(data, np.uint8)
    # IMREAD_REDUCED_GRAYSCALE_2, _4, _8 are 16, 32, 64 alone; with a colour flag they mean the reduced colour image
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (0 if reduction == 1 else 8 * reduction)
    if hasattr(cv2, "IMREAD_COLOR_RGB"):
        return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB | flags)
    image = cv2.imdecode(stored, cv2.IMREAD_COLOR | flags)  # opencv < 4.11
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_pillow(data: bytes, format: str, max_pixels: int) -> np.ndarray:
    # The format's own class, not Image.open: that one warns of size by itself and tries formats that run programs.
    with _silence() if format == "TIFF" else nullcontext():
        image = _pillow_class(format)(io.BytesIO(data))
        deep = format in ("PNG", "TIFF") and ";16" in str(image.tile)  # how samples are stored, which loading forgets
        pixels = from_pillow(image, max_pixels)
    if deep and not image.mode.startswith("I"):  # of 16 bits a colour Pillow keeps the upper 8
        with suppress(cv2.error):  # of kinds that it does not know
            stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            if stored is not None and stored.ndim == 3:
                check_levels(stored[:, :, :3])
    return pixels


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


def from_pillow(image: Image.Image, max_pixels: int) -> np.ndarray:
    _check_size(*image.size, max_pixels)
    pixels = _pillow_pixels(image)
    # After loading, as a PNG's EXIF may stand behind the pixels; a TIFF is turned by Pillow and keeps none.
    return _upright(pixels, orientation(image.info.get("exif", b"")))


def _pillow_pixels(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode.startswith("I"):  # I;16, I;16B and I: 16-bit samples, which convert would clip at 255
        return _pillow_grey(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"))
    if image.mode == "F":
        return from_array(np.asarray(image))
    return np.array(image.convert("RGB"))


def _pillow_grey(image: Image.Image) -> np.ndarray:
    """Grey of 16 bits; the level that a PNG calls transparent becomes white."""
    levels = np.asarray(image).clip(0, 65535).astype(np.uint16)
    check_levels(levels)
    clear = image.info.get("transparency")
    return from_array(levels if clear is None else np.where(levels == clear, np.uint16(65535), levels))


def check_levels(image: np.ndarray) -> None:
    """Nothing where 16 bits are used. Raises: ImageError for 8 bits that lie in 16: they would be black."""
    if image.dtype == np.uint16 and 1 < image.max(initial=0) < 256:
        raise ImageError(
            f"expected uint16 up to 65535, got {kind(image)} up to {image.max()}; pass it as uint8, or save it so"
        )


def from_array(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ImageError(f"expected an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {kind(image)}")
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
        raise ImageError(f"expected uint8, uint16, bool or float in 0..1, got {kind(image)}")
    low, high = image.min(), image.max()
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN fails both
        raise ImageError(f"expected floats in 0..1, got {low:g}..{high:g}; divide by 255, or pass uint8")
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _upright(image: np.ndarray, turned: int) -> np.ndarray:
    return image if turned == 1 else np.ascontiguousarray(_UPRIGHT[turned](image))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"damaged image: {width}x{height} pixels")
    if width * height > max_pixels:
        many = f"{width}x{height} is more than {max_pixels} pixels"
        raise ImageError(f"too large: {many}; make it smaller (read_image takes max_pixels=)")


def kind(image: object) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
