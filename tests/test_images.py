import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from multihead.decoders import ImageError
from multihead.images import image_files, is_image_name, read_image, write_jpeg


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """A smooth picture without any symmetry."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


JPEG = encoded(Image.fromarray(picture()), quality=90)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for chunk in (head, b"IDAT" + zlib.compress(b"\0" * 99), b"IEND"):
        parts.append(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    return b"".join(parts)


@pytest.mark.parametrize(
    "options",
    [{"quality": 90}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}, {"quality": 20, "optimize": True}],
)
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (17, 1), (7, 31)])
def test_jpeg_pixels_equal_pillow(options, size):
    data = encoded(Image.fromarray(picture()).resize(size), **options)
    image = read_image(data)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr", "1"])
def test_jpeg_modes_equal_pillow(mode):
    data = encoded(Image.fromarray(picture()).convert(mode).convert("L" if mode == "1" else mode))
    np.testing.assert_array_equal(read_image(data), by_pillow(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_files_equals_pillow(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), format, exif=exif)
    image = read_image(data)
    assert image.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    np.testing.assert_array_equal(image, by_pillow(data))
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), image)


def test_orientation_six_by_hand():
    """Value 6: the stored left column is the top row, so turn it clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[1, 0] = 255  # bottom left becomes top left
    image = read_image(encoded(Image.fromarray(stored), "PNG", exif=exif))
    assert image[0, 0].tolist() == [255, 255, 255] and image.sum() == 3 * 255


def test_orientation_of_cmyk_is_applied_once():
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(Image.fromarray(picture()).convert("CMYK"), exif=exif)
    np.testing.assert_array_equal(read_image(data), by_pillow(data))


@pytest.mark.parametrize(
    "broken", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_broken_exif_means_upright_without_a_warning(broken):
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(picture()), quality=90, exif=broken)), by_pillow(JPEG)
    )


def test_alpha_is_composited_on_white():
    image = np.zeros((1, 3, 4), np.uint8)  # black, and clear, half, opaque
    image[0, :, 3] = 0, 128, 255
    expected = [[255, 127, 0]]
    for data in (encoded(Image.fromarray(image), "PNG"), encoded(Image.fromarray(image), "TIFF")):
        assert read_image(data)[..., 0].tolist() == expected
    assert read_image(image)[..., 1].tolist() == expected
    grey = Image.fromarray(image).convert("LA")
    assert read_image(encoded(grey, "PNG"))[..., 2].tolist() == expected


def test_palette_with_a_transparent_entry():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    for data in (encoded(palette, "PNG", transparency=0), encoded(palette, "GIF", transparency=0)):
        assert read_image(data).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    partly = encoded(palette, "PNG", transparency=bytes([255, 0]))  # Pillow warns of this kind on convert("RGB")
    assert read_image(partly).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert read_image(encoded(palette, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_sixteen_bits_keep_the_high_byte():
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    expected = [[0, 0, 1, 128, 255]]
    for data in (cv2.imencode(".png", levels)[1].tobytes(), encoded(Image.fromarray(levels), "TIFF")):
        assert read_image(data)[..., 0].tolist() == expected
    colour = cv2.imencode(".png", np.repeat(levels[:, :, None], 3, 2))[1].tobytes()
    assert read_image(colour)[..., 2].tolist() == expected
    assert read_image(levels)[..., 0].tolist() == expected


def test_sixteen_bits_with_a_transparent_level():
    """Pillow's own conversion to RGBA clips 16 bits at 255: nearly all would be white."""
    data = cv2.imencode(".png", np.array([[0, 7, 32768, 65535]], np.uint16))[1].tobytes()
    clear = struct.pack(">I4sH", 2, b"tRNS", 7)
    data = data[:33] + clear + struct.pack(">I", zlib.crc32(clear[4:])) + data[33:]  # behind the header
    assert read_image(data)[0, :, 0].tolist() == [0, 255, 128, 255]


def test_a_file_of_8_bits_that_lie_in_16_is_not_black():
    for dtype in (np.uint16, np.int32):
        data = encoded(Image.fromarray(np.array([[0, 9, 250]], dtype)), "TIFF")
        with pytest.raises(
            ImageError, match="bytes: expected uint16 up to 65535, got .* up to 250; pass it as uint8, or save it so"
        ):
            read_image(data)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        data = encoded(
            frames[0],
            format,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if format == "WEBP" else {}),
        )
        assert read_image(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_other_formats_equal_pillow(format):
    data = encoded(Image.fromarray(picture()), format)
    np.testing.assert_array_equal(read_image(data), by_pillow(data))


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_eight_bits_a_colour_in_sixteen_are_refused(ending, channels):
    """Pillow keeps the upper eight, which are all 0."""
    drawn = np.random.default_rng(0).integers(0, 256, (6, 5, channels), np.uint8)
    drawn[..., 3:] = 255
    with pytest.raises(ImageError, match=r"bytes: expected uint16 up to 65535, got uint16 \(6, 5, 3\) up to 2\d\d"):
        read_image(cv2.imencode(ending, drawn.astype(np.uint16))[1].tobytes())
    if channels == 4:  # a cut-out
        clear = drawn.astype(np.uint16)
        clear[:, :, 3] = np.where(np.arange(5) < 2, 0, 65535)
        with pytest.raises(ImageError, match="expected uint16 up to 65535"):
            read_image(cv2.imencode(ending, clear)[1].tobytes())
    whole = cv2.imencode(ending, drawn.astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(read_image(whole), drawn[:, :, 2::-1])
    for level in (0, 257, 65535):  # one colour all over is no sign of it
        plain = np.full((6, 5, channels), level, np.uint16)
        plain[..., 3:] = 65535
        assert (read_image(cv2.imencode(ending, plain)[1].tobytes()) == level >> 8).all()


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_are_as_their_arrays(kind):
    array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    if kind.is_floating_point:
        tensor = (torch.from_numpy(array) / 255).to(kind).requires_grad_()
        wanted = np.rint(tensor.detach().float().numpy() * 255).astype(np.uint8)
    else:
        factor = 257 if kind == torch.uint16 else 1
        tensor, wanted = torch.from_numpy(array.astype(np.int32) * factor).to(kind), array
    np.testing.assert_array_equal(read_image(tensor), wanted)  # (H, W, C), as torch.from_numpy gives it
    np.testing.assert_array_equal(read_image(tensor.permute(2, 0, 1)), wanted)
    np.testing.assert_array_equal(read_image(tensor[:, :, 0]), wanted[:, :, :1].repeat(3, 2))
    np.testing.assert_array_equal(read_image(tensor.permute(2, 0, 1)[:1]), wanted[:, :, :1].repeat(3, 2))


def test_a_tensor_subclass_is_a_tensor():
    class Picture(torch.Tensor):
        pass

    tensor = torch.zeros(3, 4, 5, dtype=torch.uint8).as_subclass(Picture)
    assert read_image(tensor).shape == (4, 5, 3)


@pytest.mark.parametrize(
    "tensor, words",
    [
        (torch.zeros(5, 6, 7), r"expected a tensor \(C, H, W\) with C of 1, 3 or 4, or \(H, W\), got .*\(5, 6, 7\)"),
        (torch.zeros(2, 3, 6, 7), r"expected a tensor \(C, H, W\)"),
        (
            torch.full((3, 4, 5), 200, dtype=torch.uint16),
            "expected uint16 up to 65535, got .* up to 200; pass it as uint8",
        ),
        (torch.full((3, 4, 5), 2.0), "expected floats in 0..1, got 2..2"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "expected uint8, uint16, bool or float in 0..1, got"),
    ],
)
def test_tensor_errors(tensor, words):
    with pytest.raises(ImageError, match=words):
        read_image(tensor)


def test_arrays():
    image = picture()
    assert read_image(image) is image
    np.testing.assert_array_equal(read_image(image[:, ::-1]), image[:, ::-1])
    assert read_image(image[:, ::-1]).flags.c_contiguous
    np.testing.assert_array_equal(read_image(image[..., 0]), np.stack([image[..., 0]] * 3, 2))
    np.testing.assert_array_equal(read_image(image[..., :1]), np.stack([image[..., 0]] * 3, 2))
    np.testing.assert_array_equal(read_image(image / 255), image)
    np.testing.assert_array_equal(read_image((image / 255).astype(np.float32)), image)
    assert read_image(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), np.int64), "expected uint8, uint16, bool or float"),
        (np.full((4, 4), 1.5), r"got 1\.5\.\.1\.5; divide by 255"),
        (np.full((4, 4), np.nan), "expected floats in 0..1"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"got uint8 \(4,\)"),
    ],
)
def test_array_errors(array, words):
    with pytest.raises(ImageError, match=words):
        read_image(array)


def test_pillow_images_of_every_mode():
    image = Image.fromarray(picture())
    for mode in ("1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA"):
        seen = read_image(image.convert("L").convert(mode) if mode == "1" else image.convert(mode))
        assert seen.shape == (48, 64, 3) and seen.dtype == np.uint8
    for mode in ("I", "I;16"):  # which keep 0..255
        with pytest.raises(ImageError, match="Pillow image: expected uint16 up to 65535"):
            read_image(image.convert("L").convert(mode))
    assert read_image(Image.fromarray(np.full((2, 2), 0.5, np.float32))).tolist() == [[[128] * 3] * 2] * 2
    with pytest.raises(ImageError, match="Pillow image: .*got 0..7"):
        read_image(Image.fromarray(np.array([[0, 7]], np.float32)))


@pytest.mark.parametrize("cut", [1, 2, 50, len(JPEG) // 2, len(JPEG) - 400, len(JPEG) - 20])
def test_truncated_jpeg(cut, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as many training scripts do
    with pytest.raises(ImageError, match="truncated JPEG"):
        read_image(JPEG[:-cut])


def test_truncated_jpeg_whose_thumbnail_and_tail_look_whole():
    exif = Image.Exif()
    data = encoded(Image.fromarray(picture()), exif=exif.tobytes() + JPEG)
    assert read_image(data).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="truncated JPEG"):
        read_image(data[:-100])
    with pytest.raises(ImageError, match="truncated JPEG"):
        read_image(JPEG[: len(JPEG) // 2] + bytes(4096))
    np.testing.assert_array_equal(read_image(JPEG + b"after the end"), by_pillow(JPEG))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_truncated_files(format):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), format)
    with pytest.raises(ImageError):
        read_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"hello, this is a photo\n" * 9, r"not an image \(text\?\), it begins b'hello"),
        (b"<html>404</html>", "text"),
        (b"\x7fELF\x02\x01", "unknown format"),
        (bytes(5000), "only zeros"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC is not supported; convert it to JPEG"),
        (png_header(40000, 40000), "too large: 40000x40000"),
        (png_header(0, 5), "damaged image"),
        (b"\xff\xd8\xff\xe0\0\x04ab" + b"\0" * 50, "damaged JPEG header"),
    ],
)
def test_what_is_no_image(data, words, tmp_path):
    path = tmp_path / "photo, 1.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words):
        read_image(data)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(path)
    assert str(caught.value).startswith(repr(str(path)))


def test_size_is_judged_by_the_header():
    start = JPEG.index(b"\xff\xc0") + 5
    bomb = JPEG[:start] + struct.pack(">HH", 40000, 40000) + JPEG[start + 4 :]
    with pytest.raises(ImageError, match="too large: 40000x40000"):
        read_image(bomb)
    with pytest.raises(ImageError, match="too large: 64x48 is more than 3071 pixels; make it smaller"):
        read_image(JPEG, max_pixels=64 * 48 - 1)
    with pytest.raises(ImageError, match="Pillow image: too large"):
        read_image(Image.new("1", (64, 48)), max_pixels=64 * 48 - 1)
    assert read_image(JPEG, max_pixels=64 * 48).shape == (48, 64, 3)
    assert read_image(encoded(Image.new("RGB", (20_000, 8)))).shape == (8, 20_000, 3)


def test_a_photo_that_pillow_warns_of(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # warns above, refuses above twice that
    for format in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"):
        assert read_image(encoded(Image.fromarray(picture()), format)).shape == (48, 64, 3)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        "folder.jpg": "is a folder",
        "link.jpg": "broken link to .*gone",
        "none.jpg": "no such file",
        "pipe.jpg": "regular",
    }
    for name, words in cases.items():
        with pytest.raises(ImageError, match=words):
            read_image(str(tmp_path / name))
    with pytest.raises(ImageError, match="not a file name"):
        read_image("a\0.jpg")
    with pytest.raises(ImageError, match="got int"):
        read_image(3)
    with pytest.raises(ImageError, match="Pillow image: damaged"):
        image = Image.open(io.BytesIO(JPEG))
        image.close()
        read_image(image)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]), st.data())
def test_hostile_bytes_give_an_image_or_an_image_error(capfd, format, data):
    whole = bytearray(encoded(Image.fromarray(picture(16, 16)), format))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = read_image(bytes(whole[:end]), max_pixels=1_000_000)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        except ImageError as error:
            assert "bytes: " in str(error)


def test_threads_agree_and_settings_stay(tmp_path):
    sources = [JPEG, encoded(Image.fromarray(picture()), "TIFF"), encoded(Image.fromarray(picture()), "PNG")]
    expected = [read_image(source) for source in sources]
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    with ThreadPoolExecutor(8) as pool:
        for index, image in enumerate(pool.map(read_image, sources * 40)):
            np.testing.assert_array_equal(image, expected[index % 3])
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_old_opencv_without_rgb_flag(monkeypatch):
    expected = read_image(JPEG)
    monkeypatch.delattr(cv2, "IMREAD_COLOR_RGB")
    np.testing.assert_array_equal(read_image(JPEG), expected)


def test_pillow_answers_where_opencv_does_not(monkeypatch):
    expected = read_image(JPEG)
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: None)
    np.testing.assert_array_equal(read_image(JPEG), expected)


def test_image_files(tmp_path):
    wanted = [
        "a.JPG",
        "b c.png",
        "comma,1.jpeg",
        'quote".webp',
        "line\nbreak.tif",
        "한글.bmp",
        "sub/._x/../d.GIF",
        "phone.HEIC",
    ]
    (tmp_path / "sub" / "x.jpg").mkdir(parents=True)
    (tmp_path / "sub" / ".hidden").mkdir()
    names = [name.replace("._x/../", "") for name in wanted] + ["sub/x.jpg/inside.jpg"]
    for name in [*names, "._a.JPG", "sub/._d.GIF", "sub/.hidden/e.jpg", "notes.txt", "jpg", ".jpg"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    expected = sorted(tmp_path / name for name in [*names, "broken.jpg"])
    assert image_files(tmp_path) == expected
    assert image_files(str(tmp_path)) == expected


def test_links_in_a_circle_are_files_that_cannot_be_read(tmp_path):
    write_jpeg(picture(), tmp_path / "a.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    assert image_files(tmp_path) == [tmp_path / "a.jpg", tmp_path / "self.jpg"]
    with pytest.raises(ImageError, match=r"self.jpg': Too many levels of symbolic links"):
        read_image(tmp_path / "self.jpg")


def test_image_files_below_a_hidden_folder_and_errors(tmp_path):
    root = tmp_path / ".cache"
    root.mkdir()
    assert image_files(root) == []
    (root / "a.jpg").touch()
    assert image_files(root) == [root / "a.jpg"]
    with pytest.raises(FileNotFoundError, match="gone"):
        image_files(tmp_path / "gone")
    with pytest.raises(NotADirectoryError):
        image_files(root / "a.jpg")


def test_image_files_with_a_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(name, "wb") as stream:
        stream.write(JPEG)
    (file,) = image_files(tmp_path)
    assert os.fsencode(file) == name
    assert read_image(file).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("A.JPEG", True),
        ("._a.jpg", False),
        (".jpg", False),
        ("a.txt", False),
        ("jpg", False),
        ("a.b/c.tiff", True),
    ],
)
def test_is_image_name(name, expected):
    assert is_image_name(name) is expected
    assert is_image_name(Path(name)) is expected


def test_write_jpeg_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "photo.jpg"
    write_jpeg(picture(), path)
    seen = read_image(path)
    assert np.abs(seen.astype(int) - picture()).mean() < 4  # swapped channels would be far off
    write_jpeg(picture(), path, quality=10)
    assert np.abs(read_image(path).astype(int) - picture()).mean() > np.abs(seen.astype(int) - picture()).mean()
    assert [item.name for item in path.parent.iterdir()] == ["photo.jpg"]


def test_write_jpeg_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    write_jpeg(picture(), path)
    before = path.read_bytes()

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", full)
        write_jpeg(picture()[::-1], path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    def killed(part, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_jpeg(picture()[::-1], path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (picture(8, 8, 4), r"expected RGB uint8 \(H, W, 3\), got uint8 \(8, 8, 4\); use read_image first"),
        (picture(8, 8)[..., 0], r"got uint8 \(8, 8\)"),
        (picture(8, 8) / 255, "got float64"),
        (Image.new("RGB", (8, 8)), "got Image"),
        (np.zeros((0, 8, 3), np.uint8), "sides of 1 to 65500"),
        (np.zeros((1, 65_501, 3), np.uint8), "sides of 1 to 65500"),
    ],
)
def test_write_jpeg_refuses(image, words, tmp_path):
    with pytest.raises(ImageError, match=words):
        write_jpeg(image, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_write_jpeg_refuses_a_quality(tmp_path):
    with pytest.raises(ValueError, match=r"quality 1\.\.100, got 0"):
        write_jpeg(picture(), tmp_path / "a.jpg", quality=0)


def test_threads_may_write_the_same_file(tmp_path):
    path, start = tmp_path / "a.jpg", threading.Barrier(4)

    def write(_):
        start.wait()
        for _ in range(10):
            write_jpeg(picture(), path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [item.name for item in tmp_path.iterdir()] == ["a.jpg"] and read_image(path).shape == (48, 64, 3)


class Upload:
    """As FastAPI's: its read is asynchronous, and the file is in it."""

    def __init__(self, file):
        self.file = file

    async def read(self):
        return self.file.read()


def test_an_upload_that_is_read_asynchronously():
    pixels = np.full((20, 30, 3), 200, np.uint8)
    Image.fromarray(pixels).save(held := io.BytesIO(), "png")
    held.seek(0)
    assert np.array_equal(read_image(Upload(held)), pixels)
