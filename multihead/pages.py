"""A page of HTML that needs nothing but itself: tables, heat maps, bars and pictures, every text of others escaped."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

STYLE = """
:root{color-scheme:light dark;--ink:#1a1c20;--soft:#59606b;--page:#fff;--card:#f4f5f7;--line:#d5d9df;--link:#005a9c}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#a6adb9;--page:#15171b;--card:#1f2228;--line:#3a3f48;
--link:#7cc0f5}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--page);color:var(--ink);line-height:1.5;
font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
h1{font-size:1.5rem;line-height:1.2;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2.2rem 0 .5rem;padding-top:.5rem;
border-top:1px solid var(--line)}h3{font-size:1rem;margin:1.2rem 0 .4rem}
a{color:var(--link)}p{max-width:46rem}.soft,caption,figcaption{color:var(--soft);font-size:.88rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.92rem}
.note{background:var(--card);border-left:4px solid #E69F00;padding:.5rem .8rem;max-width:46rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.3rem}
th,td{padding:.22rem .55rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:middle}
th{font-weight:600}th:first-child,td.text,th.text{text-align:left}
td{white-space:nowrap}tbody th{font-weight:400}td.text{white-space:normal;overflow-wrap:anywhere;min-width:8rem}
td.bar{padding:0 .55rem}td.bar svg{display:block}
table.heat{font-size:.78rem}table.heat td,table.heat th{padding:.15rem .3rem;min-width:1.9rem;text-align:center;
border:1px solid var(--page)}table.heat tbody th{text-align:left;white-space:nowrap;color:var(--ink)}
table.heat td{background:var(--card)}
figure{margin:.8rem 0}figure.chart img{max-width:100%;height:auto;background:#fff;border-radius:6px}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr))}
.card{background:var(--card);border-radius:8px;padding:.6rem;break-inside:avoid;margin:0}
.card .views{display:flex;flex-wrap:wrap;gap:.4rem}.card img{display:block;border-radius:4px;max-width:100%;height:auto}
.card figcaption{color:var(--ink);overflow-wrap:anywhere;margin-top:.4rem}.card ul{margin:.2rem 0;padding-left:1.1rem}
.wrong{font-weight:600}details{margin:.6rem 0}summary{cursor:pointer;color:var(--link)}
@media (max-width:40rem){body{padding:.7rem}table{font-size:.8rem}table.heat{font-size:.72rem}
th:first-child{position:sticky;left:0;background:var(--page)}figure.chart img{max-width:none;width:42rem}}
@media print{body{max-width:none;font-size:10pt;padding:0}nav{display:none}.scroll{overflow:visible}
h2,h3{break-after:avoid}table{font-size:8pt}table.heat{font-size:6.5pt}
table.heat td,table.heat th{padding:.1rem .15rem;min-width:0}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}tr,figure{break-inside:avoid}}
"""
# nothing may be fetched: the page stays whole wherever it is sent, and tells nobody that it is read
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RIGHT, WRONG = "0,114,178", "213,94,0"  # Okabe and Ito's blue and vermilion
SPAN = "0 to 1"  # the column of `bar`
STRONGEST = 0.75  # opacity of a full share: text stays readable on it, light or dark


class Markup(str):
    """Text that is HTML already; any other text is escaped where it goes into a page."""


def escape(text: object) -> Markup:
    """Text as HTML that shows it as it stands; bytes of file names that are no UTF-8 show as a replacement mark."""
    if isinstance(text, Markup):
        return text
    plain = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Markup(html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", plain)))


def number(value: object, digits: int = 3) -> str:
    """A number as text, a dash where there is none; whole numbers stay whole.

    >>> number(0.12345), number(7), number(float("nan")), number("x"), number(1.5e-7)
    ('0.123', '7', '–', 'x', '1.5e-07')
    """
    if value is None or isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return "–"
    if not isinstance(value, (float, np.floating)):
        return str(value)
    small = value != 0 and abs(value) < 10**-digits
    return f"{value:.2g}" if small else f"{value:.{digits}f}"


def paragraph(text: object, kind: str = "") -> Markup:
    """A paragraph; kind: "soft" for an explanation, "note" for a warning."""
    return Markup(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "", text: int = 1) -> Markup:
    """A table that scrolls sideways where it does not fit; numbers as `number` writes them.

    text: how many of the first columns hold words, which stand to the left.
    """

    def cell(place: int, value: object) -> str:
        kind = ' class="text"' if place < text else ' class="bar"' if isinstance(value, Markup) else ""
        tag = 'th scope="row"' if place == 0 else "td"
        return f"<{tag}{kind}>{escape(value if isinstance(value, Markup) else number(value))}</{tag.split()[0]}>"

    left = [place < text or name == SPAN for place, name in enumerate(columns)]
    heads = "".join(
        f'<th scope="col"{" class=text" if words else ""}>{escape(name)}</th>' for words, name in zip(left, columns)
    )
    body = "".join(f"<tr>{''.join(cell(place, value) for place, value in enumerate(row))}</tr>" for row in rows)
    return _scrolled(f"{_caption(caption)}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>")


def heat_map(classes: Sequence[str], counts: np.ndarray, *, caption: str) -> Markup:
    """A confusion (C, C), labels in rows, as a coloured table: the colour is the share of its row.

    Many or long classes are numbered above the columns.
    """
    long = len(classes) > 4 or max(map(len, classes)) > 12
    names = [f"{place} {name}" if long else name for place, name in enumerate(classes)]
    heads = "".join(
        f'<th scope="col" title="{escape(name)}">{escape(place if long else name)}</th>'
        for place, name in enumerate(classes)
    )
    body = ""
    for place, (name, row) in enumerate(zip(names, counts)):
        cells = "".join(_heat(int(count), int(row.sum()), place == column) for column, count in enumerate(row))
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}<td>{int(row.sum())}</td></tr>'
    heads = f'<th scope="col">label \\ answer</th>{heads}<th scope="col">sum</th>'
    return _scrolled(f"{_caption(caption)}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>", "heat")


def _scrolled(content: str, kind: str = "") -> Markup:
    opened = f'<table class="{kind}">' if kind else "<table>"
    return Markup(f'<div class="scroll">{opened}{content}</table></div>')


def _heat(count: int, total: int, right: bool) -> str:
    if not count:
        return '<td class="none"></td>'
    share = STRONGEST * count / total
    return f'<td style="background:rgba({RIGHT if right else WRONG},{share:.2f})">{count}</td>'


def _caption(text: str) -> str:
    return f"<caption>{escape(text)}</caption>" if text else ""


def bar(value: float, low: float, high: float) -> Markup:
    """A picture of a value in 0..1 (a dot) and its interval (a line); nothing where there is no value."""
    if not math.isfinite(value):
        return Markup("")
    parts = '<line x1="4" y1="8" x2="164" y2="8" stroke="currentColor" stroke-opacity=".25"/>'
    if math.isfinite(low) and math.isfinite(high):
        parts += f'<line x1="{_place(low)}" y1="8" x2="{_place(high)}" y2="8" stroke="rgb({RIGHT})" stroke-width="5"/>'
    parts += f'<circle cx="{_place(value)}" cy="8" r="4" fill="currentColor"/>'
    label = f"{value:.2f}" + (f", interval {low:.2f} to {high:.2f}" if math.isfinite(low) else "")
    return Markup(f'<svg width="168" height="16" viewBox="0 0 168 16" role="img" aria-label="{label}">{parts}</svg>')


def _place(value: float) -> str:
    return f"{4 + 160 * min(max(value, 0.0), 1.0):.1f}"


def picture(content: bytes, alt: str, caption: str = "", *, width: int | None = None) -> Markup:
    """A PNG or JPEG inside the page, with the text that stands for it; as a chart where it has a caption."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    size = f' width="{width}"' if width else ""
    image = f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" alt="{escape(alt)}"{size}>'
    if not caption:
        return Markup(image)
    return Markup(
        f'<figure class="chart"><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def card(views: Sequence[Markup], lines: Sequence[object], title: object) -> Markup:
    """A photo's pictures, and below them a title and lines of text."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    shown = f'<div class="views">{"".join(views)}</div>' if views else ""
    return Markup(
        f'<figure class="card">{shown}<figcaption><span class="wrong">{escape(title)}</span><ul>{items}</ul>'
        "</figcaption></figure>"
    )


def cards(parts: Sequence[Markup]) -> Markup:
    """Cards side by side, as many as fit."""
    return Markup(f'<div class="cards">{"".join(parts)}</div>')


def folded(title: str, *parts: Markup, shown: bool = False) -> Markup:
    """Parts behind a line that opens them."""
    return Markup(f"<details{' open' if shown else ''}><summary>{escape(title)}</summary>{''.join(parts)}</details>")


def heading(text: str) -> Markup:
    """A heading within a section."""
    return Markup(f"<h3>{escape(text)}</h3>")


def page(title: str, lead: Sequence[Markup], sections: Mapping[str, Sequence[Markup]]) -> str:
    """The whole page: a title, what comes first, and sections {heading: parts} with links to them."""
    keys = {name: re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in sections}
    links = "".join(f'<a href="#{keys[name]}">{escape(name)}</a>' for name in sections)
    body = "".join(
        f'<section id="{keys[name]}"><h2>{escape(name)}</h2>{"".join(parts)}</section>'
        for name, parts in sections.items()
    )
    view = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"{view}<style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{''.join(lead)}<nav>{links}</nav>{body}</body></html>\n"
    )
