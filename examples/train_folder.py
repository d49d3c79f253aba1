"""Train three heads on a folder of photos, split by person, and score the people that were held out.

python examples/train_folder.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/train_folder-<name of PHOTOS>

The drawn people took four minutes on two cores that did other work besides.
"""

import multihead as mh


def main(root, out=None, epochs=8, backbone="resnet10t", size=96):
    train, valid = mh.read(root).split(0.2, seed=0)
    model = mh.Model(backbone, heads=[head.on(mh.FULL.resized(size)) for head in mh.HEADS])
    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), augment=mh.Flip(), ema=mh.EMA(0.99))
    for row in mh.epochs(model, train, valid, recipe, out=out, resume=True):  # call it again to go on
        print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, macro-F1 {row['macro_f1']:.3f}")
    scores = mh.evaluate(model, valid)
    print(scores)
    return scores.f1


if __name__ == "__main__":
    from start import start

    start(main)
