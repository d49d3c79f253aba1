import html
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead import pages
from multihead.pages import Markup, bar, escape, heat_map, page, table

PIXEL = b"\x89PNG\r\n\x1a\n and so on"
VOID = {"meta", "img", "br", "line", "circle"}


class Reader(HTMLParser):
    """A page's text, tags and tables; fails where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def names(read):
    return [tag for tag, _ in read.tags]


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_stands_in_a_page_as_text(text):
    read = Reader(page(text, [pages.paragraph(text)], {"One": [table([text], [[text]]), pages.folded(text)]}))
    assert names(read).count("p") == 1 and "script" not in names(read)
    escape(text).encode("utf-8")  # a lone surrogate would fail


def test_escape():
    hostile = "<img src=x onerror=alert(1)>&\"'.jpg"
    assert escape(hostile) == html.escape(hostile) and escape(Markup("<b>")) == "<b>"
    assert escape(b"caf\xe9\x07.jpg".decode("utf-8", "surrogateescape")) == "caf\ufffd\ufffd.jpg"
    read = Reader(pages.picture(PIXEL, hostile, hostile))
    assert names(read) == ["figure", "div", "img", "figcaption"] and read.tags[2][1]["alt"] == hostile
    assert set(read.tags[2][1]) == {"src", "alt"}


def test_number():
    assert [pages.number(each) for each in (0.5, np.float32(0.25), np.int64(7), math.nan, None, "a", 0.0, 2e-5)] == [
        *("0.500", "0.250", "7", "–", "–", "a", "0.000", "2e-05")
    ]
    assert pages.number(1.23456, 1) == "1.2"


def test_table_by_hand():
    read = Reader(
        table(["name", "F1", "0 to 1"], [["a<b", 0.25, bar(0.25, 0, 0.5)], ["c", math.nan, bar(math.nan, 0, 1)]])
    )
    assert read.cells == [["name", "F1", "0 to 1"], ["a<b", "0.250", ""], ["c", "–", ""]]
    assert names(read).count("svg") == 1


def test_bar_draws_in_its_place():
    tags = Reader(bar(0.5, 0.25, 0.75)).tags
    assert tags[0][1]["aria-label"] == "0.50, interval 0.25 to 0.75"
    assert (tags[2][1]["x1"], tags[2][1]["x2"], tags[3][1]["cx"]) == ("44.0", "124.0", "84.0")
    alone = Reader(bar(1.0, math.nan, math.nan)).tags
    assert [tag for tag, _ in alone] == ["svg", "line", "circle"] and alone[0][1]["aria-label"] == "1.00"


def test_heat_map_by_hand():
    read = Reader(heat_map(["a", "b"], np.array([[3, 1], [0, 0]]), caption="4 photos"))
    assert read.cells == [["label \\ answer", "a", "b", "sum"], ["a", "3", "1", "4"], ["b", "", "", "0"]]
    styles = [attributes["style"] for tag, attributes in read.tags if "style" in attributes]
    assert styles == ["background:rgba(0,114,178,0.56)", "background:rgba(213,94,0,0.19)"]  # .75 of a full share
    many = Reader(heat_map([f"class {i}" for i in range(5)], np.eye(5, dtype=int), caption=""))
    assert many.cells[0] == ["label \\ answer", "0", "1", "2", "3", "4", "sum"]
    assert many.cells[3] == ["2 class 2", "", "", "1", "", "", "1"]


def luminance(colour):
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [pages.RIGHT, pages.WRONG])
@pytest.mark.parametrize(("ink", "page_colour"), [("1a1c20", "ffffff"), ("e8eaee", "15171b")])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_counts_can_be_read_on_their_colour(colour, ink, page_colour, share):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 at least, on the light page and on the dark one."""
    assert f"--ink:#{ink}" in pages.STYLE
    behind, text = (tuple(bytes.fromhex(each)) for each in (page_colour, ink))
    front, alpha = [int(part) for part in colour.split(",")], pages.STRONGEST * share
    mixed = [alpha * a + (1 - alpha) * b for a, b in zip(front, behind)]
    bright, dark = sorted([luminance(mixed), luminance(text)], reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_page_links_its_sections_and_fetches_nothing():
    read = Reader(page("T", [], {"One person's photos": [Markup("<p>x</p>")], "Two": []}))
    links = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    assert links == ["#one-person-s-photos", "#two"]
    assert [attributes["id"] for tag, attributes in read.tags if tag == "section"] == [link[1:] for link in links]
    policy = [attributes for tag, attributes in read.tags if "http-equiv" in attributes]
    assert policy[0]["content"].startswith("default-src 'none'; img-src data:")
