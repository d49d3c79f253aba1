"""Every schedule over 12 epochs of 50 steps, drawn side by side: the learning rate of each step, without a run.

python examples/schedules.py [schedules.png]
"""

import sys

from matplotlib.figure import Figure

from multihead.schedules import Constant, Cosine, CosineRestarts, Cyclic, OneCycle, Plateau, Step, rate

EPOCHS, STEPS, LR = 12, 50, 0.01
SCHEDULES = {
    "OneCycle()": OneCycle(),
    'OneCycle(interval="epoch")': OneCycle(interval="epoch"),
    "Cosine(warmup_epochs=2)": Cosine(warmup_epochs=2),
    "CosineRestarts(3, cycle_decay=0.5)": CosineRestarts(3, cycle_decay=0.5),
    "CosineRestarts(4, cycle_mul=2)": CosineRestarts(4, cycle_mul=2),
    "Step(decay_epochs=4)": Step(decay_epochs=4),
    "Plateau(), the score stands still": Plateau(),
    'Cyclic(cycle_mode="triangular")': Cyclic(cycle_mode="triangular"),
    "Cyclic()": Cyclic(),
    'Cyclic(cycle_mode="exp_range", ...)': Cyclic(cycle_mode="exp_range", cycle_gamma=0.997),
    'Cyclic(interval="epoch")': Cyclic(interval="epoch"),
    "Constant(warmup_epochs=3)": Constant(warmup_epochs=3),
}
SCORES = [0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.65, 0.65, 0.65, 0.65, 0.65, 0.65]  # one an epoch; only Plateau reads them


def main(path="schedules.png"):
    steps = EPOCHS * STEPS
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    panels = figure.subplots(3, 4, sharex=True, sharey=True)
    found = {}
    for panel, (name, schedule) in zip(panels.flat, SCHEDULES.items(), strict=True):
        rates = [rate(schedule, LR, step, steps, EPOCHS, history=SCORES) for step in range(steps)]
        found[name] = max(rates), rates[-1]
        print(f"{name:36} highest {max(rates):.5f}, last {rates[-1]:.7f}")
        panel.plot([step / STEPS for step in range(steps)], rates)
        panel.set_title(name, fontsize=9)
        panel.grid(alpha=0.3)
    panels[0, 0].set_xticks(range(0, EPOCHS + 1, 3))
    figure.supxlabel("epochs done")
    figure.supylabel("learning rate")
    figure.savefig(path)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
