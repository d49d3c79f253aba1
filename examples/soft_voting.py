"""Soft voting of unlike models, with temperatures and weights fitted on out-of-fold answers, saved as one folder.

python examples/soft_voting.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/soft_voting-<name of PHOTOS>
"""

import multihead as mh
from multihead.ensemble import fit_folds, open_folds
from multihead.voting import fit_vote_weights


def main(root, out, folds=3, epochs=6, backbone="resnet10t", size=64):
    photos, held_out = mh.read(root).split(0.2, seed=0)
    recipe, heads = (
        mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3)),
        [head.on(mh.FULL.resized(size)) for head in mh.HEADS],
    )
    tables = {"heads": heads, "flat": mh.flat(heads)}
    for name, table in tables.items():
        fit_folds(lambda table=table: mh.Model(backbone, heads=table), photos, recipe, out=f"{out}/{name}", folds=folds)
    opened = {name: open_folds(f"{out}/{name}") for name in tables}
    labels = opened["heads"].photos.labels()
    weights = fit_vote_weights([each.probs for each in opened.values()], labels, mh.HEADS)
    members, shares = [], []
    for weight, each in zip(weights, opened.values()):
        temperatures = mh.fit_temperatures(each.probs, labels, mh.HEADS)
        members += [mh.Adjusted(model, temperatures) for model in each.models()]
        shares += [weight / folds] * folds
    mh.Ensemble(members, shares).save(f"{out}/ensemble")
    voted = mh.load(f"{out}/ensemble")  # predicts, is scored, and fills in submissions like a model
    found = {name: mh.evaluate(mh.Ensemble(each.models()), held_out).f1 for name, each in opened.items()}
    found["both"] = mh.evaluate(voted, held_out).f1
    print(f"weights {', '.join(f'{name} {weight:.2f}' for name, weight in zip(tables, weights))}")
    for name, f1 in found.items():
        print(f"{name}: macro-F1 {f1:.3f}")
    return found


if __name__ == "__main__":
    from start import start

    start(main)
