"""Names of sources, which person ids are local to: unlike folders and files of one name get unlike names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def unlike_names(sources: Sequence[object]) -> list[str | None]:
    """A name for each source that shares its own with another (None for the rest), so that their people stay apart."""
    own = [Path(source).resolve() if isinstance(source, (str, Path)) else None for source in sources]
    labels = ["table" if path is None else path.name if path.is_dir() else path.stem for path in own]
    longer = [label if path is None else _longer(path.parent, label) for path, label in zip(own, labels)]
    return [
        None if labels.count(label) == 1 else long if longer.count(long) == 1 else f"{long}#{number}"
        for number, (label, long) in enumerate(zip(labels, longer), 1)
    ]


def with_slashes(paths: Sequence[str], *folders: Path) -> list[str]:
    r"""The paths of a table that Windows wrote, as they are here: imgs\a.jpg is imgs/a.jpg where the first of them are
    to be found in one of the folders so, and not as they are written."""
    turned = [path.replace("\\", "/") for path in paths]
    first = [(old, new) for old, new in zip(paths, turned) if old != new][:20]
    found = lambda path: any(os.path.exists(folder / path) for folder in folders)  # noqa: E731 (Path's own may raise)
    if os.sep == "\\" or any(found(old) for old, _ in first):
        return list(paths)
    return turned if any(found(new) for _, new in first) else list(paths)


def named_unlike(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The table, those of its sources named with their folder that are others than the other table's of that name."""
    renamed = table
    for source in sorted(set(table.source) & set(other.source)):
        mine = (table.source == source).to_numpy()
        roots = set(table.root[mine])
        if not roots.isdisjoint(other.root[other.source == source]) or not all(_is_own(source, root) for root in roots):
            continue
        root = Path(min(roots))
        unlike = _longer(root.parent if root.name == source else root, source)
        both = [*zip(table.source, table.root), *zip(other.source, other.root)]
        while any(name == unlike and place not in roots for name, place in both):  # of this root it is this source
            unlike += "'"
        local = mine & table.person.str.startswith(f"{source}:").to_numpy()
        renamed = renamed.assign(
            source=renamed.source.where(~mine, unlike),
            person=renamed.person.where(~local, unlike + renamed.person.str.slice(len(source))),
        )
    return renamed


def plain_path(path: str | Path) -> str:
    """The absolute path without "..", as long as that is the same file: behind a link it may be another."""
    text = os.path.abspath(path)
    given = os.path.join(os.getcwd(), path)
    return text if ".." not in Path(path).parts or os.path.realpath(text) == os.path.realpath(given) else given


def _is_own(source: str, root: str) -> bool:
    """Whether a source is named after its folder, or a table in it."""
    return Path(root).name == source or any(Path(root, source + end).is_file() for end in (".csv", ".txt", ".tsv"))


def _longer(folder: Path, name: str) -> str:
    """A source's name with the folder that it is in."""
    return f"{folder.name}/{name}"
