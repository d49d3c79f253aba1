"""Two runs with unlike learning rates, their TensorBoard logs as one table, and from it the best epoch of each run.

python examples/logs_to_table.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/logs_to_table-<name of PHOTOS>
"""

from pathlib import Path

import multihead as mh
from multihead.event_logs import draw, read_logs


def main(root, out, epochs=4, backbone="resnet10t", size=64):
    train, valid = mh.read(root).split(0.25, seed=0)
    heads = [head.on(mh.FULL.resized(size)) for head in mh.HEADS]
    for lr in (4e-3, 4e-4):
        recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(lr))
        mh.fit(mh.Model(backbone, heads=heads), train, valid, recipe, out=Path(out) / f"lr{lr:g}", resume=True)
    table = read_logs(out)  # every run below the folder; no TensorFlow
    scores = table[table.tag == "macro_f1"]
    best = scores.loc[scores.groupby("run", sort=False).value.idxmax()]
    for row in best.itertuples():
        print(
            f"{row.run}: best epoch {row.step} of {epochs}, macro-F1 {row.value:.4f}; see {out}/{row.run}/metrics.csv"
        )
    draw(table, "macro_f1", Path(out) / "macro_f1.png")
    return best


if __name__ == "__main__":
    from start import start

    start(main, people=60)
