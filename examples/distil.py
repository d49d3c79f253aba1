"""A small model taught by an ensemble, also on photos that nobody labelled.

python examples/distil.py [PHOTOS]    # by default drawn people
"""

import torch

import multihead as mh


def main(root, epochs=6, backbone="resnet10t", size=64):
    train, valid = mh.read(root).split(0.2, seed=0)
    labelled, unlabelled = train.split(0.5, seed=0)
    unlabelled = unlabelled.with_columns(mask=-1, gender=-1, age=-1, years=float("nan"))  # as if nobody had
    heads = [head.on(mh.FULL.resized(size)) for head in mh.HEADS]

    def trained(photos, seed, **more):
        torch.manual_seed(seed)
        model = mh.Model(backbone, heads=heads)
        mh.fit(model, photos, valid, mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), seed=seed, select="last", **more))
        return model

    teacher = mh.Ensemble([trained(labelled, seed) for seed in (0, 1)])
    photos = mh.soften(teacher, labelled + unlabelled)  # the teacher's joint probabilities travel with the photos
    models = {"alone": trained(labelled, 0), "taught": trained(photos, 0, distill=0.5), "teacher": teacher}
    found = {name: mh.evaluate(model, valid).f1 for name, model in models.items()}
    print("macro-F1 over 18 classes: " + ", ".join(f"{name} {f1:.3f}" for name, f1 in found.items()))
    return found


if __name__ == "__main__":
    from start import start

    start(main)
