"""Photos as upright RGB uint8 arrays: one decoder for training, faces and prediction, so that boxes fit the pixels."""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import cv2
import numpy as np
from PIL import Image

from multihead.decoders import (
    Encoded,
    ImageError,
    check_levels,
    decoded,
    encoded,
    from_array,
    from_pillow,
    guarded,
    kind,
)
from multihead.files import replace_file

if TYPE_CHECKING:
    import torch

Source: TypeAlias = "str | os.PathLike | bytes | np.ndarray | Image.Image | BinaryIO | torch.Tensor"

MAX_PIXELS = 178_956_970  # where Pillow itself refuses: twice its warning limit

_DECODED = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"}
# HEIC is listed though it cannot be decoded: an iPhone folder then reports its photos instead of looking empty.
SUFFIXES = frozenset(_DECODED | {".heic", ".heif"})


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Pixels (H, W, 3), uint8, RGB, contiguous, upright by the photo's own EXIF orientation.

    Transparent parts become white, as a viewer or a page shows them; dropping alpha would bring up hidden colours,
    mostly black. 16-bit samples keep their high byte, as Pillow does it. Animations give their first frame.

    Args:
        source: a path, the bytes of a file, a file open for reading bytes, a Pillow image, or an array (H, W),
            (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8, uint16, bool, or float in 0..1, or such a torch tensor,
            as torchvision reads it (C, H, W). A fitting uint8 array is returned as it is.
        max_pixels: the largest width * height, judged by the file's header before anything is decoded.

    Raises:
        ImageError: the source is missing, empty, truncated, too large or no image.

    >>> read_image(np.zeros((2, 5), np.uint16)).shape
    (2, 5, 3)
    """
    return open_image(source, max_pixels).pixels()


def open_image(source: Source, max_pixels: int = MAX_PIXELS) -> Encoded:
    """The photo of any source that `read_image` takes, to be decoded at the size that is needed; a JPEG is read, and
    checked as far as its header goes, other formats are decoded at once.

    Raises:
        ImageError: as `read_image`; of a JPEG with damaged pixels only when they are asked for.

    >>> photo = open_image(np.zeros((20, 50), np.uint8))
    >>> photo.size, photo.pixels().shape
    ((20, 50), (20, 50, 3))
    """
    if isinstance(source, np.ndarray):
        return decoded(_from_numbers(source), f"array {source.shape}")
    if is_tensor(source):
        return decoded(_from_numbers(_from_tensor(source)), f"tensor {tuple(source.shape)}")
    if isinstance(source, Image.Image):
        return decoded(guarded(lambda: from_pillow(source, max_pixels), "Pillow image"), "Pillow image")
    if isinstance(source, bytes | bytearray | memoryview):
        return encoded(bytes(source), f"{len(source)} bytes", max_pixels)
    if isinstance(source, str | os.PathLike):
        if not str(source).strip():
            raise ImageError("the path is blank")  # to Python, the current folder
        return encoded(_file_bytes(Path(source)), repr(os.fspath(source)), max_pixels)
    if is_open_file(source):
        data = _file_of(source).read()
        if not isinstance(data, bytes):
            what = f"read() gives {type(data).__name__}; expected bytes, as of a file opened with 'rb'"
            raise ImageError(f"{getattr(source, 'name', source)!r}: {what}")
        return encoded(data, repr(getattr(source, "name", None) or f"{len(data)} bytes"), max_pixels)
    expected = "expected a path, bytes, an open file, an array, a tensor or a Pillow image"
    raise ImageError(f"{expected}, got {type(source).__name__}")


def _file_of(source: BinaryIO) -> BinaryIO:
    """The file itself of an upload that is read asynchronously, as FastAPI's is."""
    inner: Any = getattr(source, "file", None)
    asked = inspect.iscoroutinefunction(source.read) and callable(getattr(inner, "read", None))
    return inner if asked else source


def is_open_file(source: object) -> TypeGuard[BinaryIO]:
    """True for what is read as a file is: io.BytesIO, what open() gives, an upload of a web framework."""
    return callable(getattr(source, "read", None)) and not isinstance(source, os.PathLike)


def is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    """True for a torch tensor, of a subclass too; torch itself is not needed."""
    return any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(source).__mro__)


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
    return list(iter_image_files(folder))


def iter_image_files(folder: str | os.PathLike) -> Iterator[Path]:
    """The files of `image_files`, in its order, one by one: memory for the names of one folder at a time."""
    return (path for path in _walk(Path(folder), set()) if is_image_name(path))


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
        raise ImageError(f"{str(path)!r}: expected RGB uint8 (H, W, 3), got {kind(image)}; use read_image first")
    if not (min(image.shape[:2]) > 0 and max(image.shape[:2]) <= 65_500):
        raise ImageError(f"{str(path)!r}: a JPEG holds sides of 1 to 65500 pixels, got {kind(image)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"expected quality 1..100, got {quality!r}")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    replace_file(path, lambda fresh: fresh.write_bytes(data.tobytes()))


def _from_numbers(array: np.ndarray) -> np.ndarray:
    """The pixels of an array that somebody made."""
    check_levels(array)
    return from_array(array)


def _from_tensor(tensor: torch.Tensor) -> np.ndarray:
    """The array (H, W) or (H, W, C) of a tensor (H, W), (C, H, W), or, where C is no first side, (H, W, C)."""
    tensor = tensor.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # bfloat16 is nothing to numpy
    first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    if array.ndim != 2 and not first and not (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ImageError(f"expected a tensor (C, H, W) with C of 1, 3 or 4, or (H, W), got {kind(array)}")
    return np.moveaxis(array, 0, -1) if first else array


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:  # sorted names give the order of sorted paths
        found = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder / name, seen)
        else:
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or where nobody may look: whoever reads it says so
        return False


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
        hint = "; an address of the web is downloaded first" if str(path).startswith(("http:/", "https:/")) else ""
        if os.sep == "/" and "\\" in str(path):
            hint = "; here folders are separated by /, and this has backslashes"
        raise ImageError(f"{str(path)!r}: no such file{hint}") from None
    except OSError as error:
        raise ImageError(f"{str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{str(path)!r}: not a file name ({error})") from error  # a NUL byte
