import numpy as np
import pytest
from PIL import Image

from multihead.drawn import COLOURS, annotate, picture_path, sheet
from multihead.heads import HEADS
from multihead.images import read_image

PROBS = np.eye(18)[15]


def close_to(image, colour, reach=40):
    return (np.abs(image.astype(int) - colour) < reach).all(2)


def test_the_box_is_drawn_in_the_colour_of_the_first_heads_class(tmp_path):
    photo = np.full((400, 330, 3), 255, np.uint8)
    annotate(photo, [((50.0, 60.0, 150.0, 180.0), PROBS)], HEADS, tmp_path / "a.jpg")
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == photo.shape
    red = close_to(found, COLOURS[2])  # not_worn
    assert red[100, 49:53].any() and red[59:63, 100].any() and not red[100, 70:130].any()
    assert red[185:260, 50:140].mean() > 0.3  # the patch below the box that carries the text
    assert (found[185:260, 50:140] > 230).any()  # white letters


def test_without_a_box_the_answers_stand_in_the_corner(tmp_path):
    photo = np.full((400, 330, 3), 255, np.uint8)
    annotate(photo, [(None, np.eye(18)[0])], HEADS, tmp_path / "a.jpg")
    green = close_to(read_image(tmp_path / "a.jpg"), COLOURS[0])
    assert green[:80, :120].mean() > 0.2 and not green[120:].any()


def test_no_answer_leaves_the_photo_alone(tmp_path):
    photo = np.full((400, 330, 3), 120, np.uint8)
    annotate(photo, [], HEADS, tmp_path / "a.jpg")
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - 120).max() <= 2


@pytest.mark.parametrize(
    "size, drawn",
    [((40, 30), (427, 320)), ((1, 1), (320, 320)), ((2, 20_000), (2, 20_000)), ((2, 70_000), (2, 65_500))],
    ids=str,
)
def test_odd_sizes_are_drawn_too(tmp_path, size, drawn):
    photo = np.full((*size, 3), 255, np.uint8)
    annotate(photo, [((0.0, 0.0, size[1] * 1.0, size[0] * 1.0), PROBS), (None, PROBS)], HEADS, tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape[:2] == drawn


def test_a_large_photo_too_long_for_a_jpeg_is_reduced(tmp_path):
    annotate(np.zeros((330, 66_000, 3), np.uint8), [], HEADS, tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape[1] == 65_500


def test_labels_stay_inside_the_picture(tmp_path):
    photo = np.full((330, 330, 3), 255, np.uint8)
    annotate(photo, [((300.0, 300.0, 329.0, 329.0), PROBS)], HEADS, tmp_path / "a.jpg")
    red = close_to(read_image(tmp_path / "a.jpg"), COLOURS[2])
    assert red[250:, 230:].mean() > 0.1 and (~red[:, 0]).all()


def test_pictures_of_equal_names_do_not_collide(tmp_path):
    one, two = picture_path(tmp_path, "x/a.jpg"), picture_path(tmp_path, "y/a.jpg")
    assert one != two and one == picture_path(tmp_path, "x/a.jpg") and one.name.startswith("a-")
    odd = picture_path(tmp_path, 'd/a b,"\n\udce4é' + "z" * 200 + ".png")
    assert odd.parent == tmp_path and len(odd.name) < 100 and odd.suffix == ".jpg" and "\n" not in odd.name
    assert picture_path(tmp_path, "photo 3").name.startswith("photo_3-")


@pytest.mark.parametrize("count, size", [(1, (1620, 360)), (7, (1620, 720)), (0, (1620, 360))])
def test_a_sheet_holds_six_in_a_row(tmp_path, count, size):
    photo = np.full((40, 30, 3), 90, np.uint8)
    sheet([(photo, (2.0, 2.0, 20.0, 20.0), PROBS)] * count, HEADS, tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as page:
        assert page.size == size and page.format == "JPEG"
        drawn = np.asarray(page) < 200
    assert drawn.any() == bool(count)
