"""The pictures of how near the stages of `predict` come to what limits them, from results/speed/*/predict.json.

python benchmarks/limits.py
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "speed"
LIMIT_OF = {"open": "raw decode", "cut": "memory copy", "answer": "raw backbone"}


def main():
    for folder in RESULTS.iterdir():
        draw(folder)


def draw(folder):
    """limits.png in a folder that holds predict.json: photos a second of each stage alone, and of its limit."""
    from matplotlib.figure import Figure

    source = folder / "predict.json"
    if not source.is_file():
        return
    numbers = json.loads(source.read_text())["numbers"]
    rows = bars(numbers)
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, speed, limit) in enumerate(reversed(rows)):
        axes.barh(place, speed, color="#4c72b0" if name.startswith("ours") or ":" in name else "#c0c0c0", height=0.6)
        text = f" {speed:,.0f}"
        if limit:
            axes.plot([limit, limit], [place - 0.4, place + 0.4], color="#c44e52", linewidth=3)
            text = f" {speed:,.0f} of {limit:,.0f}"
        axes.text(max(speed, limit or 0), place, text, va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 6)
    axes.set_xlabel("photos a second on two cores\nred: the stage's limit (raw decode, memory copy, raw backbone)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "limits.png", dpi=120)


def bars(numbers):
    """[(name, photos a second, those of its limit or None)]"""
    rows = [(name, 1000 / each["ms"], None) for name, each in numbers["sides"].items()]
    for side, found in numbers["stages"].items():
        for stage in ("open", "search", "cut", "answer"):
            limit = found["ms"].get(LIMIT_OF.get(stage))
            speed = 1000 / max(found["ms"][stage], 0.005)
            rows.append((f"{side.removeprefix('ours, ')}: {stage}", speed, limit and 1000 / max(limit, 0.005)))
    return rows


if __name__ == "__main__":
    main()
