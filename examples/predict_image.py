"""Answers of a saved model for one photo, an array and bytes, as a table and as a picture.

python examples/predict_image.py MODEL PHOTO [OUTPUT]    # by default runs/predict_image-<name of PHOTO>
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import multihead as mh


def main(model, photo, draw=None):
    if not hasattr(model, "probs"):
        model = mh.load(model)
    array = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))  # an array must stand upright
    table = mh.predict(model, [photo, array, Path(photo).read_bytes()], draw=draw)
    print(table[["path", "mask", "gender", "age", "label"]].to_string(index=False))
    print(f"the three agree: {table.label.nunique() == 1}")
    return table


if __name__ == "__main__":
    from start import told, words

    model, photo, *output = words(2, 3)
    with told():
        main(model, photo, draw=output[0] if output else f"runs/predict_image-{Path(photo).name}")
