"""A JPEG decoded at a fraction of its size, beside a full decode shrunk by area."""

import io
import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from multihead.decoders import REDUCTIONS, ImageError, encoded, guarded
from multihead.images import open_image, read_image


def smooth(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(image).convert(options.pop("mode", "RGB")).save(stream, "JPEG", quality=95, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_decodes_equal_the_full_one_shrunk(reduction, orientation):
    photo = open_image(jpeg(smooth(160, 224), orientation))
    assert photo.size == ((160, 224) if orientation < 5 else (224, 160))
    found = photo.pixels(reduction)
    assert found.shape == (photo.size[0] // reduction, photo.size[1] // reduction, 3) and found.flags.c_contiguous
    expected = cv2.resize(photo.pixels(), found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 2  # a colour in the wrong place, or not turned, gives 20


@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_odd_sides_are_rounded_up(reduction):
    photo = open_image(jpeg(smooth(101, 67)))
    assert photo.pixels(reduction).shape == (-(-101 // reduction), -(-67 // reduction), 3)
    assert photo.size == (101, 67)


def test_the_last_decode_is_kept(monkeypatch):
    photo, calls = open_image(jpeg(smooth(64, 64))), []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: calls.append(1) or decode(*given))
    assert photo.pixels(2) is photo.pixels(2) and photo.pixels(1).shape == (64, 64, 3)
    assert len(calls) == 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_photos_give_three_channels(mode):
    photo = open_image(jpeg(smooth(64, 80), mode=mode))
    assert photo.pixels(2).shape[2] == 3 and photo.size == (64, 80)
    np.testing.assert_array_equal(photo.pixels(), read_image(jpeg(smooth(64, 80), mode=mode)))


def test_other_formats_and_arrays_come_in_full():
    image = smooth(48, 40)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    for source in (stream.getvalue(), image, Image.fromarray(image)):
        np.testing.assert_array_equal(open_image(source).pixels(8), image)


def test_errors_name_the_photo(tmp_path):
    with pytest.raises(ValueError, match=r"reduction to be one of \(1, 2, 4, 8\), got 3"):
        open_image(smooth(48, 40)).pixels(3)
    data = bytearray(jpeg(smooth(64, 64)))
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut\.jpg.*truncated"):
        open_image(path)
    with pytest.raises(ImageError, match="seven: too large: 64x64"):
        encoded(bytes(data), "seven", 100)
    start = data.index(b"\xff\xc0")
    data[start + 2 + 3 : start + 2 + 7] = b"\x00\x40\x00\x00"  # no width
    with pytest.raises(ImageError, match="damaged image: 0x64"):
        open_image(bytes(data))


# ---- damaged files


def written(format):
    stream = io.BytesIO()
    Image.fromarray(smooth(32, 48)).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (written("GIF")[:12], "it was cut short, or overwritten in part"),
        (written("PNG")[:20], "Truncated File Read"),
        (written("TIFF")[:6], "it was cut short, or overwritten in part"),
        (written("PNG")[:200], "image file is truncated"),
        (written("BMP")[:40], "Truncated File Read"),
    ],
    ids=["gif", "png", "tiff", "png-pixels", "bmp"],
)
def test_a_damaged_file_is_told_in_plain_words(data, told):
    with pytest.raises(ImageError, match="damaged image") as caught:
        read_image(data)
    assert told in str(caught.value)


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "BMP", "WEBP"])
def test_no_cut_shows_the_decoders_code(format):
    data = written(format)
    for end in range(12, 300, 3):
        try:
            read_image(data[:end])
        except ImageError as error:
            assert not re.search(r"unpack|buffer|index|interpreted|NoneType|\(\d*\)", str(error)), error


@pytest.mark.parametrize("error", [KeyError(10241), IndexError("index out of range"), TypeError("no int"), OSError()])
def test_what_a_decoder_did_not_mean_to_say_is_not_told(error):
    def fail():
        raise error

    with pytest.raises(ImageError, match=r"^a.gif: damaged image \(it was cut short, or overwritten in part\)$"):
        guarded(fail, "a.gif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_an_orientation_may_be_written_in_two_bytes_or_four(order, kind):
    """As Pillow reads it."""
    value = struct.pack(f"{order}HH", 6, 0) if kind == 3 else struct.pack(f"{order}I", 6)
    exif = b"Exif\0\0" + (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, 1)
    exif += struct.pack(f"{order}HHI", 0x0112, kind, 1) + value + bytes(4)
    stream = io.BytesIO()
    Image.fromarray(smooth(40, 60)).save(stream, "JPEG", quality=95, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(stream.getvalue())))
    assert turned.size == (40, 60)
    photo = open_image(stream.getvalue())
    assert photo.size == (60, 40)
    assert np.abs(read_image(stream.getvalue()).astype(int) - np.asarray(turned)).mean() < 3
