import numpy as np
import pytest
from PIL import Image

from multihead.drawn import COLOURS, annotate, picture_path, sheet
from multihead.heads import HEADS, Head
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


# ---- several faces


def drawn(tmp_path, boxes, probs=PROBS, size=(400, 600)):
    """What is drawn of faces in a white photo."""
    annotate(np.full((*size, 3), 255, np.uint8), [(box, probs) for box in boxes], HEADS, tmp_path / "a.jpg")
    return read_image(tmp_path / "a.jpg")


def inside(found, box, scale=1.0):
    x0, y0, x1, y1 = (round(value * scale) for value in box)
    return found[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]


def test_no_label_lies_on_a_face(tmp_path):
    boxes = [(100.0, 80.0, 200.0, 200.0), (130.0, 205.0, 230.0, 325.0), (210.0, 60.0, 300.0, 170.0)]
    found = drawn(tmp_path, boxes)
    assert found.shape == (400, 600, 3)  # no legend is needed
    red = close_to(found, COLOURS[2])
    assert all((inside(found, box) > 230).all() for box in boxes)
    assert red[20:76, 100:190].mean() > 0.3  # above the first, as the second is below
    assert red[329:378, 130:220].mean() > 0.3 and red[10:56, 210:290].mean() > 0.3


def test_letters_are_as_high_as_the_face_asks_for_within_limits(tmp_path):
    def high(side):
        red = close_to(drawn(tmp_path, [(200.0, 10.0, 200.0 + side, 10.0 + side)], size=(900, 900)), COLOURS[2])
        rows = np.flatnonzero(red[:, 195:320].sum(1) > 30)  # of the patch, and the box's edges
        return rows.max() - (10 + side)

    assert high(30) == high(60) < high(140) < high(300) == high(500)


def test_a_crowd_gets_numbers_and_a_legend(tmp_path):
    boxes = [(x, y, x + 36.0, y + 40.0) for y in range(20, 380, 60) for x in range(10, 560, 50)]
    found = drawn(tmp_path, boxes, np.eye(18)[0])
    green = close_to(found, COLOURS[0])
    assert found.shape[1] == 600 and found.shape[0] > 400
    for x0, y0, x1, y1 in (map(int, box) for box in boxes):
        assert green[y0 + 5 : y1 - 5, x0 - 1 : x0 + 3].any(1).all()  # its box
        around = green[y0 - 20 : y1 + 20, x0 - 2 : x1 + 2].copy()
        around[17:-17] = False
        assert around.sum() > 80  # its number
    assert np.mean([(inside(found, box) > 230).mean() for box in boxes]) > 0.999
    legend = green[400:, :3].all(1)  # the first column: a patch a line, a gap between two
    assert (np.diff(legend.astype(int)) == 1).sum() == -(-len(boxes) // (600 // 260))


def test_small_faces_are_enlarged_for_their_numbers_up_to_a_limit(tmp_path):
    boxes = [(x, y, x + 10.0, y + 10.0) for y in range(20, 380, 20) for x in range(10, 580, 20)]
    assert drawn(tmp_path, boxes).shape[1] == 2340  # 39 pixels a face
    assert drawn(tmp_path, boxes, size=(400, 3000)).shape[1] == 4000


def test_a_row_without_a_box_among_faces_has_its_number_in_the_corner(tmp_path):
    boxes = [None, (0.0, 0.0, 200.0, 200.0), (200.0, 0.0, 400.0, 200.0)]
    found = drawn(tmp_path, boxes)
    assert found.shape[0] > 400 and close_to(found, COLOURS[2])[4:18, 4:14].mean() > 0.4


def test_a_legend_wider_than_the_photo_widens_the_page(tmp_path):
    wordy = (Head("mood", tuple(f"{'very ' * 20}{name}" for name in "abc")),)
    rows = [((10.0, y, 300.0, y + 100.0), np.eye(3)[0]) for y in (0.0, 101.0, 202.0)]
    annotate(np.full((330, 330, 3), 255, np.uint8), rows, wordy, tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape[1] > 600
