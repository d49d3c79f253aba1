"""Answers for photos of any kind: files, folders, tables, arrays, pictures, bytes; one row a photo or face."""

from __future__ import annotations

import glob
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from multihead.batches import cut_crops
from multihead.crops import Box, Crop, box_of
from multihead.data import Photos
from multihead.decoders import ImageError
from multihead.evaluation import Classifier, evaluating
from multihead.faces import Detector, Finder, choose
from multihead.images import image_files, read_image
from multihead.labels import Head, marginals, size
from multihead.reading import read
from multihead.speed import keep_memory
from multihead.splits import groups
from multihead.voting import person_vote, shared_heads

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 32  # photos decoded and searched together, unless they are large
CHUNK_PIXELS = 64_000_000


@dataclass(frozen=True)
class Item:
    """One photo to answer for: its name in the table, what to read, and what is known of its face and person."""

    name: str
    source: Any
    box: Box | None = None
    whole: bool = False
    person: str = ""


@dataclass(frozen=True)
class Answer:
    """One row: the photo, the face (None: none, or not looked for), joint probabilities (K,) or the reason for none."""

    item: Item
    box: Box | None
    probs: np.ndarray | None
    error: str = ""


def predict(
    model: Classifier,
    source: object,
    *,
    faces: str | None = None,
    batch_size: int = 32,
    missing: str = "full",
    finder: Detector | None = None,
    workers: int = 2,
    draw: str | Path | None = None,
) -> pd.DataFrame:
    """A table of answers: path, box, one column per head, label, probabilities, error; in the order of the source.

    source: a path, folder, glob pattern, CSV, `Photos`, DataFrame, array (H, W, 3) or (N, H, W, 3), PIL picture,
    bytes, or a list of any of these. faces: "largest" or "central" gives a row a photo, "all" a row a face; by
    default the largest, searched only if the model's crops need it. missing: what a photo without a face gets where
    a crop needs one ("full": the whole photo is read, "skip": a row with an error, "error": an exception). draw: a
    folder for copies of the photos with boxes and answers.

    Columns: box is "x0 y0 x1 y1" in pixels; label the joint class's number; "mask:worn" and so on the probabilities
    of each head, "joint:0" and so on the joint ones. A photo that cannot be read has a row with its reason.

    Raises: ValueError for an unknown `faces` or `missing`, or, with missing="error", a photo without a face.
    """
    rows = answers(
        model,
        source,
        faces=faces,
        batch_size=batch_size,
        missing=missing,
        finder=finder,
        workers=workers,
        draw=draw,
    )
    return table(rows, model.space)


def answers(
    model: Classifier,
    source: object,
    *,
    faces: str | None = None,
    batch_size: int = 32,
    missing: str = "full",
    finder: Detector | None = None,
    workers: int = 2,
    draw: str | Path | None = None,
) -> Iterator[Answer]:
    """The rows of `predict` (same arguments) one by one, as they are found; memory does not grow with the source."""
    if faces not in (None, "largest", "central", "all"):
        raise ValueError(f"faces={faces!r}; expected 'largest', 'central' or 'all'")
    if missing not in ("full", "skip", "error"):
        raise ValueError(f"missing={missing!r}; expected 'full', 'skip' or 'error'")
    needs = any(crop.needs_box for crop in model.crops)
    if faces == "all" and not needs:
        print("the model reads whole photos: all faces of a photo get one answer; train with crops that need a face "
              "(--crops face) to tell them apart", file=sys.stderr)  # fmt: skip
    keep_memory()
    searcher = finder or Finder()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for decoded in _chunks(items(source), pool, 2 * max(1, workers)):
            chunk, images = [item for item, _ in decoded], [image for _, image in decoded]
            found = (
                _faces(chunk, images, faces or "largest", searcher)
                if needs or faces
                else [[item.box] for item in chunk]
            )
            rows = list(_rows(chunk, images, found, needs, missing))
            done = _answer(model, rows, batch_size)
            if draw is not None:
                _draw(chunk, images, done, model.space, Path(draw))
            yield from done


def items(source: object) -> Iterator[Item]:
    """The photos of any accepted source, lazily, each with a name.

    Raises: TypeError for what is no source, ValueError for a CSV that cannot be read.
    """
    yield from _items(source, "photo")


def _items(source: Any, name: str) -> Iterator[Item]:
    import pandas as pd
    from PIL import Image

    if isinstance(source, Item):
        yield source
    elif isinstance(source, Photos):
        known = zip(source.paths, source.table.name, source.boxes, source.table.whole, source.people)
        for path, shown, box, whole, person in known:
            yield Item(shown, Path(path), box_of(box), bool(whole), person)
    elif isinstance(source, pd.DataFrame):
        yield from _items(read(source, heads=()), name)
    elif isinstance(source, (str, Path)):
        yield from _path_items(source)
    elif isinstance(source, np.ndarray) and source.ndim == 4:
        yield from (Item(f"{name} {number}", image) for number, image in enumerate(source))
    elif isinstance(source, (np.ndarray, bytes, bytearray, Image.Image)):
        yield Item(name, source)
    elif isinstance(source, (list, tuple)) or hasattr(source, "__next__"):
        for number, part in enumerate(source):
            yield from _items(part, f"{name} {number}")
    else:
        raise TypeError(
            f"cannot read photos from {type(source).__name__}; expected a path, array, PIL picture, bytes or a list"
        )


def _path_items(source: str | Path) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        yield from (Item(str(file), file) for file in image_files(path))
    elif path.suffix.lower() in (".csv", ".tsv", ".txt") and path.is_file():
        yield from _items(read(path, heads=()), "")
    elif not path.exists() and glob.has_magic(str(source)):
        matches = sorted(glob.glob(str(source), recursive=True))
        for match in matches or [str(source)]:
            yield from _path_items(match) if matches else [Item(match, Path(match))]
    else:
        yield Item(str(source), path)  # what is not there is a row with its reason


def _chunks(
    rest: Iterator[Item], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[list[tuple[Item, np.ndarray | str]]]:
    """Photos with their pixels, in order, together as many as are answered at once: bounded in number and in pixels;
    rows of one photo stay together."""
    waiting: deque[tuple[Item, Future[np.ndarray | str]]] = deque()
    chunk: list[tuple[Item, np.ndarray | str]] = []
    pixels = 0
    last = object()
    for item in chain(rest, [last]):
        if isinstance(item, Item):
            waiting.append((item, pool.submit(_decode, item)))
        while waiting and (item is last or len(waiting) > ahead):
            ready, future = waiting.popleft()
            full = len(chunk) >= CHUNK or pixels >= CHUNK_PIXELS
            if full and chunk[-1][0].name != ready.name:
                yield chunk
                chunk, pixels = [], 0
            image = future.result()
            chunk.append((ready, image))
            pixels += 0 if isinstance(image, str) else image.shape[0] * image.shape[1]
    if chunk:
        yield chunk


def _decode(item: Item) -> np.ndarray | str:
    try:
        return read_image(item.source)
    except ImageError as error:
        return str(error)


def _faces(
    chunk: Sequence[Item], images: Sequence[np.ndarray | str], which: str, finder: Detector
) -> list[list[Box | None]]:
    """The boxes to answer for in each photo: its own box if it came with one, else what the finder finds."""
    wanted = [not isinstance(image, str) and item.box is None and not item.whole for item, image in zip(chunk, images)]
    searched = iter(finder.find([image for image, search in zip(images, wanted) if search]))  # type: ignore[misc]
    found: list[list[Box | None]] = []
    for item, image, search in zip(chunk, images, wanted):
        if not search:
            found.append([item.box])
            continue
        faces = choose(next(searched), which, image.shape[:2])  # type: ignore[union-attr]
        found.append([face.box for face in faces] or [None])
    return found


def _rows(
    chunk: Sequence[Item],
    images: Sequence[np.ndarray | str],
    found: Sequence[Sequence[Box | None]],
    needs: bool,
    missing: str,
) -> Iterator[tuple[Answer, np.ndarray | None]]:
    """(the row without its probabilities, the photo) for every row; the photo is None where there is no answer."""
    for item, image, boxes in zip(chunk, images, found):
        for box in boxes:
            if isinstance(image, str):
                yield Answer(item, None, None, image), None
            elif needs and box is None and not item.whole and missing != "full":
                if missing == "error":
                    raise ValueError(f"{item.name}: no face found; use missing='full' or 'skip'")
                yield Answer(item, None, None, "no face found"), None
            else:
                yield Answer(item, box, None), image


def _answer(model: Classifier, rows: Sequence[tuple[Answer, np.ndarray | None]], batch_size: int) -> list[Answer]:
    """The rows with their probabilities, one pass of the model per `batch_size` of them."""
    done, cuts = [row for row, _ in rows], []
    for place, (row, image) in enumerate(rows):
        if image is None:
            continue
        try:
            cuts.append((place, *cut_crops(image, model.crops, row.box, row.item.whole)))
        except ValueError as error:
            done[place] = Answer(row.item, row.box, None, f"{row.item.name}: {error}")
    for start in range(0, len(cuts), batch_size):
        part = cuts[start : start + batch_size]
        probs = crop_probs(model, [images for _, images, _ in part], [present for _, _, present in part])
        for (place, _, _), row_probs in zip(part, probs):
            done[place] = Answer(done[place].item, done[place].box, row_probs)
    return done


def crop_probs(
    model: Classifier, images: Sequence[Sequence[np.ndarray]], present: Sequence[Sequence[bool]]
) -> np.ndarray:
    """Joint probabilities (B, K) of B photos' crops [(H, W, 3) uint8, ...] in the order of `model.crops`."""
    device = next(iter(model.parameters())).device  # type: ignore[call-overload]
    batch: dict[Crop, torch.Tensor] = {}
    for column, crop in enumerate(model.crops):
        stacked = np.stack([photo[column] for photo in images])  # (B, H, W, 3)
        batch[crop] = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
    with evaluating(model), torch.inference_mode():
        return model.probs(batch, torch.tensor(present, dtype=torch.bool)).cpu().numpy()


def person_voted(rows: Sequence[Answer], space: Sequence[Head]) -> list[Answer]:
    """The answers after the photos of each person, where the source knew them, have voted on gender and age.

    Raises: ValueError where no head of the space is gender or age.
    """
    answered = [number for number, row in enumerate(rows) if row.probs is not None]
    voted = list(rows)
    if answered:
        probs = np.stack([rows[number].probs for number in answered])  # type: ignore[misc]
        group = groups([rows[number].item.person for number in answered])
        for number, each in zip(answered, person_vote(probs, group, space, shared_heads(space))):
            voted[number] = replace(rows[number], probs=each)
    return voted


def table(rows: Iterator[Answer] | Sequence[Answer], space: Sequence[Head]) -> pd.DataFrame:
    """The answers as a DataFrame; see `predict` for its columns."""
    import pandas as pd

    rows = list(rows)
    number = size(space)
    answered = np.array([row.probs is not None for row in rows], bool)
    probs = np.stack(
        [row.probs if row.probs is not None else np.full(number, np.nan) for row in rows] or [np.empty(number)]
    )
    probs = probs[: len(rows)]
    columns: dict[str, Any] = {"path": [row.item.name for row in rows], "box": [box_text(row.box) for row in rows]}
    parts = marginals(probs, space)
    for head in space:
        best = np.nan_to_num(parts[head.name]).argmax(1)
        columns[head.name] = [head.classes[index] if there else "" for index, there in zip(best, answered)]
    label = pd.array(np.nan_to_num(probs).argmax(1), dtype="Int64")
    label[~answered] = pd.NA
    columns["label"] = label
    for head in space:
        columns |= {f"{head.name}:{name}": parts[head.name][:, index] for index, name in enumerate(head.classes)}
    columns |= {f"joint:{index}": probs[:, index] for index in range(number)}
    columns["error"] = [row.error for row in rows]
    return pd.DataFrame(columns)


def box_text(box: Box | None) -> str:
    """A box as "x0 y0 x1 y1" with one decimal, "" for none."""
    return "" if box is None else " ".join(f"{value:.1f}" for value in box)


def submission(
    model: Classifier, info: str | Path, images: str | Path | None = None, *, workers: int = 2
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """(every row of a competition's info.csv in its order with `ans` filled in, [(ImageID, reason)] of the photos that
    could not be read and got the likeliest class of the training photos).

    images: the folder of the photos; by default images/ beside the file, or the file's own folder.

    Raises: KeyError where there is no ImageID column; ValueError where a photo cannot be read and the model knows no
    training prior.
    """
    import pandas as pd

    info = Path(info)
    listed = pd.read_csv(info, dtype=str, keep_default_na=False)
    if "ImageID" not in listed:
        raise KeyError(f"{info} has columns {list(listed.columns)}; expected ImageID, as in the competition's info.csv")
    folder = Path(images) if images else info.parent / "images"
    folder = folder if folder.is_dir() else info.parent
    photos = [Item(str(folder / name), folder / name) for name in listed.ImageID]  # a row each, whatever is there
    rows = list(answers(model, photos, workers=workers))
    unread = [(name, row.error) for name, row in zip(listed.ImageID, rows) if row.probs is None]
    known = getattr(model, "prior", None)
    if unread and known is None:
        raise ValueError(
            f"{unread[0][1]}; the model knows no training prior to answer with: train it with multihead.fit"
        )
    fallback = int(np.argmax(known)) if known is not None else 0
    listed["ans"] = [fallback if row.probs is None else int(row.probs.argmax()) for row in rows]
    return listed[["ImageID", "ans"]], unread


def _draw(
    chunk: Sequence[Item],
    images: Sequence[np.ndarray | str],
    rows: Sequence[Answer],
    space: Sequence[Head],
    folder: Path,
) -> None:
    from multihead.drawn import annotate, picture_path

    pictures = {item.name: image for item, image in zip(chunk, images) if not isinstance(image, str)}
    for name, image in pictures.items():  # a table may have several rows of one photo
        mine = [(row.box, row.probs) for row in rows if row.item.name == name and row.probs is not None]
        annotate(image, mine, space, picture_path(folder, name))
