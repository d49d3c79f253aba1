"""Each head reads its own crop: the mask the face, gender the body, age both; each distinct crop is read once.

python examples/two_crops.py [PHOTOS]    # by default drawn people; faces are searched once and remembered
"""

from pathlib import Path

import multihead as mh


def main(root, epochs=8, backbone="resnet10t", size=96, boxes=None):
    face, body = mh.FACE.resized(size, size), mh.BODY.resized(size * 4 // 3, size)
    heads = [mh.MASK.on(face), mh.GENDER.on(body), mh.AGE.on(face, body)]
    train, valid = mh.read(root, boxes=boxes).split(0.2, seed=0)
    model = mh.Model(backbone, heads=heads)
    print(f"{len(model.crops)} passes of the backbone a photo, for {len(model.heads)} heads")
    mh.fit(model, train, valid, mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), ema=mh.EMA(0.99)))
    scores = mh.evaluate(model, valid)
    print(scores)
    for state, part in scores.by("mask").items():
        print(f"age macro-F1 where the mask is {state}: {part.heads['age'].f1:.3f}")
    return scores.f1


if __name__ == "__main__":
    from start import start

    def with_boxes(root):
        boxes = Path(root) / "boxes.csv"  # of faces that are known already, as drawn people's are
        main(root, boxes=boxes if boxes.is_file() else None)

    start(with_boxes)
