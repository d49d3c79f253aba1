"""Train three heads on a folder of photos, split by person, and score the people that were held out.

python examples/train_folder.py path/to/photos    # <id>_<gender>_<race>_<age>/mask1.jpg ..., or a CSV
python examples/train_folder.py                   # drawn people
"""

import sys

import multihead as mh


def main(root, epochs=8, backbone="resnet10t", size=96, out=None):
    train, valid = mh.read(root).split(0.2, seed=0)
    model = mh.Model(backbone, heads=[head.on(mh.FULL.resized(size)) for head in mh.HEADS])
    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), augment=mh.Flip(), ema=mh.EMA(0.99))
    for row in mh.epochs(model, train, valid, recipe, out=out):
        print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, macro-F1 {row['macro_f1']:.3f}")
    scores = mh.evaluate(model, valid)
    print(scores)
    return scores.f1


if __name__ == "__main__":
    from multihead.synthetic import make

    main(sys.argv[1] if len(sys.argv) > 1 else make("runs/people", count=120) / "train")
