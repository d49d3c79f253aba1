"""Face boxes for photos that lack them: a scan's, or searched once, kept in a file, counted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multihead import ranks
from multihead.box_files import forget, read_boxes
from multihead.cells import BOX
from multihead.crops import Crop
from multihead.data import Photos
from multihead.faces import Detector, identity
from multihead.files import cache_folder, check_writable, turn, write_text
from multihead.options import choice
from multihead.recipe import MISSING
from multihead.scanning import scan
from multihead.yunet import open_detector

if TYPE_CHECKING:
    import pandas as pd

SEARCH = 3  # raised when the search changes so much that kept boxes should not be used


@dataclass(frozen=True)
class Located:
    """photos ready for their crops; searched: how many files were searched now; faceless: names without a face."""

    photos: Photos
    searched: int
    faceless: tuple[str, ...]


def locate_faces(
    photos: Photos,
    crops: Sequence[Crop],
    *,
    missing: str = "full",
    finder: Detector | str | None = None,
    progress: Callable[..., None] | None = None,
) -> Located:
    """The photos with a face box where a crop needs one: those without are searched, once, in a cache folder.

    missing: "full" keeps photos without a face (their crops read the whole photo), "skip" drops them, "error" raises.

    Raises: ValueError for another `missing`, or for missing="error" where a photo has no face, naming the first.
    """
    choice("faces", "missing", missing, MISSING)
    if not any(crop.needs_box for crop in crops):
        return Located(photos, 0, ())
    table = photos.table
    todo = (table.x0.isna() & ~table.whole.astype(bool) & ~table.searched.astype(bool)).to_numpy()
    searched, finder = 0, open_detector(finder)
    for root in sorted(set(table.root[todo])):
        files = sorted(set(table.path[todo & (table.root == root).to_numpy()]))
        # another process that wants these photos too finds them searched
        with _kept(boxes_file(root, finder)) as kept, turn(kept.with_suffix(".lock")):
            forget_changed(kept, files)
            counts = scan(files, kept, finder=finder, progress=progress)
            searched += counts.found + counts.none + counts.unreadable
            photos = _add(photos, todo & (table.root == root).to_numpy(), kept)
    # a photo that cannot be read was not searched: it is reported as unreadable, by whoever reads it
    table = photos.table
    without = (table.x0.isna() & ~table.whole.astype(bool) & table.searched.astype(bool)).to_numpy()
    faceless = tuple(photos.table.name[without])
    if missing == "error" and faceless:
        raise ValueError(
            f"{len(faceless)} photos have no face, the first is {faceless[0]}; use missing='full' or 'skip'"
        )
    return Located(photos[~without] if missing == "skip" else photos, searched, faceless)


@contextlib.contextmanager
def _kept(file: Path) -> Iterator[Path]:
    """The cache file; where it cannot be written a copy that is forgotten, as in a container without a home."""
    try:
        check_writable(file)
    except OSError as error:
        ranks.say(
            f"boxes of faces are not kept: {error} by XDG_CACHE_HOME, or give the boxes of a scan (boxes=, --boxes)"
        )
    else:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        for known in (file, file.with_suffix(".seen")):
            with contextlib.suppress(OSError):
                shutil.copyfile(known, Path(folder, known.name))
        yield Path(folder, file.name)


def _add(photos: Photos, rows: np.ndarray, path: Path) -> Photos:
    """The photos with the boxes of a cache file, which names photos by their whole path, in these rows (N,)."""
    scanned = read_boxes(path)
    scanned = scanned[scanned.status != "unreadable"].drop_duplicates("path").set_index("path")
    table = photos.table.copy()
    keys = np.array([Path(os.path.abspath(file)).as_posix() for file in table.path], object)
    rows = rows & np.isin(keys, scanned.index.to_numpy(object))
    table.loc[rows, BOX] = scanned.loc[keys[rows], BOX].to_numpy(float)
    table.loc[rows, "searched"] = True
    return Photos(table, photos.heads)


def add_boxes(photos: Photos, path: str | Path) -> Photos:
    """The photos with the boxes of a scan; a row that has a box, or is a tight face, keeps what it has.

    Photos the scan lists without a face count as searched. Of several faces in a photo the largest is taken.

    Raises: ValueError where the scan names none of the photos, or its relative paths fit several folders.
    """
    scan = read_boxes(path)
    scan = scan[scan.status.isin(["found", "none"])].copy()
    scan["area"] = ((scan.x1 - scan.x0) * (scan.y1 - scan.y0)).fillna(-1)
    best = scan.sort_values("area", kind="stable").drop_duplicates("path", keep="last").set_index("path")
    table = photos.table.copy()
    names = [_scanned_as(*row, best.index) for row in zip(table.name, table.path, table.root)]
    listed = np.array([key in best.index for key in names], bool)
    if len(photos) and not listed.any():
        raise ValueError(
            f"{path}: none of its paths (first: {next(iter(best.index), 'no row')!r}) is one of the photos "
            f"(first: {names[0]!r}); expected paths as the source writes them, or absolute"
        )
    folders = {root for root, key in zip(table.root, names) if not os.path.isabs(key)}
    if len(folders) > 1:
        raise ValueError(
            f"{path} names photos relative to one folder, and these photos come from {len(folders)}: "
            f"{', '.join(sorted(folders)[:3])}; read each with its own boxes, or scan them together"
        )
    free = listed & table.x0.isna().to_numpy() & ~table.whole.to_numpy(bool)
    chosen = best.loc[[key for key, take in zip(names, free) if take], BOX].to_numpy(float)
    table.loc[free, BOX] = chosen
    table.loc[free, "searched"] = True
    return Photos(table, photos.heads)


def _scanned_as(name: str, path: str, root: str, keys: pd.Index) -> str:
    """The key of a photo: its name as the source writes it, its path, or that below its root, as a scan of a table of
    absolute paths writes it; its path where none is a key."""
    below = path.removeprefix(root + os.sep)
    return next((key for key in (name, path, below) if key in keys), path)


def forget_changed(path: Path, files: Sequence[str]) -> None:
    """Drop from a cache file, and from what an interrupted search left of it, the boxes of those files that are not
    what they were when their search began; and note what they are now, beside it."""
    beside = path.with_suffix(".seen")
    try:
        known = json.loads(beside.read_text())
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    now = {Path(os.path.abspath(file)).as_posix(): _stamp(file) for file in files}
    changed = {name for name, stamp in now.items() if known.get(name) != stamp}
    if changed:
        forget(path, changed)  # before the note: who is interrupted in between searches once more, not too seldom
        write_text(beside, json.dumps(known | now, indent=0))


def _stamp(file: str) -> str:
    """What tells a file from another one, or another time's, in its place; "" where it is not there."""
    try:
        found = os.stat(file)
        return f"{found.st_size} {found.st_mtime_ns}"
    except OSError:
        return ""


def boxes_file(root: str | Path, finder: Detector | str | None = None) -> Path:
    """Where the boxes of photos under `root` are kept by default; each detector, and each version of the search, keeps
    its own. finder: default Finder()."""
    text = f"{SEARCH} {identity(open_detector(finder))} {Path(root).resolve()}"
    key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / f"boxes-{key}.csv"
