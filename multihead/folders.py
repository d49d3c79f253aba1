"""Models made of other models, as folders (the members side by side, and one file that says what joins them) and as
text."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multihead.files import naming, write_text
from multihead.model import Model

_OURS = re.compile(r"ensemble\.json|member\d+|splits\.csv|README\.md|\..*")


def save_members(folder: str | Path, kind: str, members: Iterable[Any], more: Mapping[str, object]) -> None:
    """Write the members as member0, member1, ..., and ensemble.json with the kind, their names and whatever is `more`;
    `multihead.load` opens it.

    members: models, or what is made of models and has a `save` of its own.

    Raises: FileExistsError for a folder that holds something else; TypeError for a member without a `save`.
    """
    members = list(members)
    for number, member in enumerate(members):
        if not hasattr(member, "save_pretrained") and not hasattr(member, "save"):
            raise TypeError(
                f"member {number} is a {type(member).__name__}, which has no save(folder); "
                "expected a model of this library"
            )
    place = Path(folder)
    others = [path.name for path in place.iterdir() if not _OURS.fullmatch(path.name)] if place.is_dir() else []
    if others:
        raise FileExistsError(f"{place} holds {sorted(others)[0]!r}, which is of no ensemble; name a new folder")
    place.mkdir(parents=True, exist_ok=True)
    with naming(place), tempfile.TemporaryDirectory(prefix=".", dir=place) as scratch:
        names = [f"member{number}" for number in range(len(members))]
        for name, member in zip(names, members):
            save = member.save_pretrained if isinstance(member, Model) else member.save
            save(Path(scratch) / name)
        (place / "ensemble.json").unlink(missing_ok=True)  # an older one does not fit members that are half there
        for name in names:
            shutil.rmtree(place / name, ignore_errors=True)
            os.replace(Path(scratch) / name, place / name)
    content = {"kind": kind, "members": names, **more}
    write_text(place / "ensemble.json", json.dumps(content, indent=2))


def described(kind: str, about: str, members: Iterable[str]) -> str:
    """A model made of others as text: a line about itself, then a line or more for each member.

    >>> print(described("Ensemble", "soft voting", ["0.5 Model('a')", "0.5 Model('b')"]))
    Ensemble(soft voting
        0.5 Model('a')
        0.5 Model('b'))
    """
    return "\n".join([f"{kind}({about}", *(textwrap.indent(member, "    ") for member in members)]) + ")"
