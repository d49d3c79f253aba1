"""What a model folder says of its model: config.json, from which it is made again, and its model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multihead.crops import Crop
from multihead.files import read_json
from multihead.heads import Head, base, joint_names

FORMAT = 1
PLAIN = ("backbone", "drop", "drop_path", "mean", "std", "prior")  # arguments that config.json holds as they are


def config_text(backbone: str, heads: Sequence[Head], settings: Mapping[str, object]) -> str:
    """The text of config.json; settings: the other arguments that `read_config` gives back, as plain data."""
    config = {
        "multihead": FORMAT,
        "backbone": backbone,
        "heads": [dataclasses.asdict(head) for head in heads],
        **settings,
        "classes": joint_names(base(heads)),
    }
    return json.dumps(config, indent=2)


def read_config(folder: str | Path) -> dict[str, object]:
    """The constructor's arguments of a saved model folder.

    Raises: FileNotFoundError or ValueError where it is no such folder.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder: config.json is missing; expected what save_pretrained wrote"
        )
    content = read_json(path)
    config = content if isinstance(content, dict) else {}
    if config.get("multihead") != FORMAT or "backbone" not in config:
        raise ValueError(f"{path} is not of a multihead model (format {config.get('multihead')!r}, expected {FORMAT})")
    try:
        heads = tuple(head_from_dict(head) for head in config["heads"])
        return {"heads": heads} | {name: config[name] for name in PLAIN}
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; expected it as save_pretrained wrote it") from error


def head_from_dict(plain: Mapping[str, Any]) -> Head:
    """The Head that `dataclasses.asdict` made plain."""
    crops = tuple(Crop(**(crop | {"size": tuple(crop["size"])})) for crop in plain["crops"])
    edges = None if plain["edges"] is None else tuple(plain["edges"])
    parts = tuple(head_from_dict(part) for part in plain["parts"])
    return Head(str(plain["name"]), tuple(plain["classes"]), crops, edges, parts, plain.get("number"))


def reads(heads: Sequence[Head]) -> str:
    """What each head reads, as text.

    >>> from multihead.heads import MASK
    >>> reads([MASK])
    'mask on full 224x224'
    """
    return "; ".join(f"{head.name} on {', '.join(crop_texts(head.crops))}" for head in heads)


def crop_texts(crops: Iterable[object]) -> list[str]:
    """Each crop's name and size, as text; what is no crop as it is written.

    >>> from multihead.crops import FACE
    >>> crop_texts([FACE.resized(64, 48)])
    ['face 64x48']
    """
    return [f"{crop.name} {crop.size[0]}x{crop.size[1]}" if isinstance(crop, Crop) else repr(crop) for crop in crops]


def card(backbone: str, heads: Sequence[Head]) -> str:
    """The model card: what a model answers, what it reads, how it is used, and what it must not be used for."""
    questions = "\n".join(
        f"- **{head.name}**: {', '.join(head.classes)} (reads {', '.join(crop_texts(head.crops))})" for head in heads
    )
    return f"""---
library_name: multihead
pipeline_tag: image-classification
tags: [multihead, timm, {backbone}]
---
# {backbone} with {len(heads)} head(s)

{questions}

```python
import multihead as mh
model = mh.load("THIS_FOLDER")
print(mh.predict(model, "photo.jpg"))
```

## Limits
Answers about gender and age are statistical guesses from looks, by the labels of the training photos. They differ in
quality between groups of people: score the model by group on your own photos before relying on it, and do not use it
to decide about a person.
"""
