"""The README.md of an exported folder: how it is asked, with this library and without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from multihead.carry import PACKAGE
from multihead.crops import VISIBLE, Crop, crop_text
from multihead.graphs import input_names, output_names
from multihead.heads import Head
from multihead.model import Model

_CONFIG = 'with open("config.json") as file:\n    told = json.load(file)\n'
# {runtime: (its package, how the graph is opened and asked for the heads' probabilities and the joint ones)}
_RUNS = {
    "onnx": (
        "onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        'told = json.loads(session.get_modelmeta().custom_metadata_map["multihead"])\n'
        "*heads, joint = session.run(None, feed)",
    ),
    "openvino": (
        "openvino",
        _CONFIG + 'model = openvino.compile_model("model.xml", "CPU"{hint})\n'
        "answers = model(feed)\n"
        '*heads, joint = (answers[name] for name in told["outputs"])',
    ),
    "torch": (
        "torch",
        _CONFIG + 'program = torch.export.load("model.pt2").module()\n'
        "*heads, joint = program(*map(torch.from_numpy, feed.values()))",
    ),
}
_TOLD = {
    "onnx": "the metadata of model.onnx, key `multihead`, and in config.json",
    "openvino": "the runtime information (rt_info) of model.xml, key `multihead`, and in config.json",
    "torch": "config.json",
}


def readme(model: Model, runtime: str, precision: str) -> str:
    """The text of README.md for a model that was exported for a runtime: its card, and how the graph is fed."""
    inputs, outputs = input_names(model.crops), output_names(model.crops, model.space)
    parts = [
        f"Exported for {runtime} in {precision}: inputs {', '.join(inputs)}; outputs {', '.join(outputs)}. Pixels are "
        "uint8 RGB (B, 3, H, W); the graph normalises.",
        f"## Without multihead\nIn this folder, with numpy, OpenCV and Pillow (the versions in config.json give the "
        f"same bits) and {_RUNS[runtime][0]}:",
        f"```python\n{snippet(model, runtime, precision)}```",
        f"`{PACKAGE}/` makes of a photo the very inputs that multihead makes of it; the folder may be copied into a "
        "program and renamed. Inputs of several photos are joined row by row: `{name: np.concatenate([feed[name] for "
        "feed in feeds]) for name in feeds[0]}`.",
        _boxes(model.crops),
        joint_text(model.space),
        f"Heads with their classes and crops, inputs, outputs and all joint classes in order are in {_TOLD[runtime]}.",
        _geometry(model.crops),
    ]
    return str(model.generate_model_card()).replace("## Limits", "\n\n".join([*parts, "## Limits"]))


def snippet(model: Model, runtime: str, precision: str) -> str:
    """A program that answers for photo.jpg without this library."""
    box = ", box=(40, 30, 120, 130)" if any(crop.needs_box for crop in model.crops) else ""
    package, steps = _RUNS[runtime]
    # by itself it takes bf16 where the processor has it
    steps = steps.replace("{hint}", ', {"INFERENCE_PRECISION_HINT": "f32"}' if precision == "f32" else "")
    return f"""import json

import {package}
from {PACKAGE} import inputs

feed = inputs("photo.jpg"{box})  # {{name: array}} of one photo{", the face at this box" if box else ""}
{steps}
for name, probs in zip(told["outputs"], heads):
    print(name, probs[0])
number = int(joint[0].argmax())
print(number, told["classes"][number])
"""


def joint_text(space: Sequence[Head]) -> str:
    """The order of the joint classes in words.

    >>> from multihead.heads import GENDER, MASK
    >>> print(joint_text([MASK, GENDER]).split(";")[0])
    `joint` (B, 6) has a class for each combination, the first head slowest: number = mask * 2 + gender
    """
    sizes = tuple(len(head.classes) for head in space)
    number = space[0].name
    for place, head in enumerate(space[1:]):
        number = f"({number})" if place else number
        number = f"{number} * {len(head.classes)} + {head.name}"
    ends = ["/".join(head.classes[end] for head in space) for end in (0, -1)]
    return (
        f"`joint` (B, {math.prod(sizes)}) has a class for each combination, the first head slowest: number = {number}; "
        f"0 is `{ends[0]}`, {math.prod(sizes) - 1} is `{ends[1]}`, and `np.unravel_index(number, {sizes})` gives "
        f"the classes of {', '.join(head.name for head in space)}. A head's own probabilities are sums of these."
    )


def _boxes(crops: Sequence[Crop]) -> str:
    """What a box is, and who finds it."""
    if not any(crop.needs_box for crop in crops):
        return "Every input is the whole photo: faces need not be found, and `box` changes nothing."
    return (
        "Faces are not found here: find them with the detector that found those of the training photos (multihead's "
        "own is MTCNN), as others draw wider or narrower boxes, and ask once a face. `box` is (x0, y0, x1, y1), in "
        "pixels, whole or not, of the photo in full and upright (turned by its EXIF): x0, y0 is the face's upper left "
        "corner, x1, y1 the lower right one, just outside it. Without a box (None: no face was found) every input is "
        "the whole photo; `whole=True` says that the photo is a tight face, and all of it the box."
    )


def _geometry(crops: Sequence[Crop]) -> str:
    """How the graph's inputs are cut from a photo, for those who write it in another language."""
    lines = [f"- `{name}`: {crop_text(crop)}" for name, crop in zip(input_names(crops), crops)]
    return (
        "In another language, each input is cut from the upright photo like this:\n\n"
        + "\n".join(lines)
        + "\n\nWhat lies outside the photo is cut off, and the rest is resized to the input's size without keeping its "
        f"aspect. {PACKAGE}/cutting.py has the steps: a photo that shrinks much is decoded at 1/2, 1/4 or 1/8 and read "
        "in between. A plain resize (cv2.INTER_AREA where it shrinks, linear where it grows) gives other pixels, and "
        "now and then another answer. `present` (B, inputs) is false where a photo lacks an input, whose pixels "
        f"are then not read: a body of which less than {VISIBLE:.0%} is in the photo."
    )
