"""Two ways to train, compared on the same folds: the difference, and how sure it is.

python examples/compare_arms.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/compare_arms-<name of PHOTOS>
"""

import multihead as mh


def main(root, out, epochs=4, backbone="resnet10t", size=64):
    photos = mh.read(root)
    heads = [head.on(mh.FULL.resized(size)) for head in mh.HEADS]

    def model():
        return mh.Model(backbone, heads=heads)

    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3))
    mixed = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), mix=mh.CutMix(0.5))
    arms = {"plain": mh.Arm(model, recipe), "cutmix": mh.Arm(model, mixed)}
    found = mh.compare(arms, photos, out, folds=2, seeds=[0])  # call it again to go on, or to add arms and seeds
    row = found[(found.arm == "cutmix") & (found.metric == "mask_f1")].iloc[0]
    interval = f"95 % of resampled people: {row.low:+.3f} to {row.high:+.3f}"
    print(f"cutmix minus plain, mask macro-F1: {row.difference:+.3f} ({interval})")
    return found


if __name__ == "__main__":
    from start import start

    start(main, people=60)
