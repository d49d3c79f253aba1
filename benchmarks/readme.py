"""The tables of README.md and of examples/studies/README.md that stand in results/: written from them between the
marks, so that they cannot differ.

python benchmarks/readme.py
"""

import functools
import json
import re
from pathlib import Path

import heads_vs_flat
import pandas as pd

README = Path(__file__).parents[1] / "README.md"
STUDIES = README.parent / "examples" / "studies" / "README.md"
RESULTS = Path(__file__).parent / "results"


def main():
    for path, tables in MADE.items():
        path.write_text(filled(path.read_text(), tables))


def filled(text, tables):
    """The text with what stands between each pair of marks made anew; tables: {name of the marks: what makes it}."""
    for name, made in tables.items():
        mark = re.compile(rf"(<!-- {name}: .*?-->\n).*?(<!-- end -->)", re.DOTALL)
        assert mark.search(text), f"the text lacks the marks of {name!r}"
        text = mark.sub(lambda found, made=made: f"{found[1]}{made()}\n{found[2]}", text)
    return text


def results():
    """{name: result} of the comparisons of heads and flat."""
    files = sorted((RESULTS / "heads_vs_flat").glob("*.json"))
    return {file.stem: json.loads(file.read_text())["numbers"] for file in files}


def heads_against_flat():
    """One line a set of photos and contender: scores of no hidden labels, and what it costs."""
    header = ["photos", "contender", "18 classes", "minus flat", "mask", "gender", "age", "training step", "answer"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, numbers in results().items():
        for arm, cost in numbers["costs"].items():
            rows = {row["metric"]: row for row in _rows(numbers, arm, 0.0)}
            joint = rows["macro_f1"]
            cells = [name, arm, f"{joint['mean']:.3f}", "" if arm == "flat" else heads_vs_flat.difference(joint)]
            cells += [f"{rows[f'{head}_f1']['mean']:.3f}" for head in ("mask", "gender", "age")]
            cells += [f"x {cost[what]['ratio']:.2f}" for what in ("train_step", "answer")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def hidden_labels():
    """One line a set of photos and share of hidden labels: each contender's 18 classes."""
    arms = ["flat", "heads", "three models"]
    header = ["photos", "hidden", arms[0], *(text for arm in arms[1:] for text in (arm, "minus flat"))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, numbers in results().items():
        for share in dict.fromkeys(row["hidden"] for row in numbers["scores"]):
            cells = [name, f"{100 * share:g} %"]
            for arm in arms:
                row = next(row for row in _rows(numbers, arm, share) if row["metric"] == "macro_f1")
                cells += [f"{row['mean']:.3f}"] + ([] if arm == "flat" else [heads_vs_flat.difference(row)])
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


KINDS = {"avx512-bf16-amx": "AVX-512 and AMX", "avx2": "AVX2 alone"}  # of results/speed/, in the order of the columns


def speed():
    """One line a comparison: what ours is set beside, and how many times as fast it is on each kind of processor."""
    rows = {}
    for kind in KINDS:
        for source in (_faces, _loader, _train, _forward, _predict, _export):
            path = RESULTS / "speed" / kind / f"{source.__name__[1:]}.json"
            if path.is_file():
                for what, beside, low, middle, high in source(json.loads(path.read_text())["numbers"]):
                    rows.setdefault((what, beside), {})[kind] = f"{middle:.1f} ({low:.1f}-{high:.1f})"
    lines = [" | ".join(["| what | beside", *KINDS.values()]) + " |", "|---" * (2 + len(KINDS)) + "|"]
    for (what, beside), found in rows.items():
        lines.append(" | ".join([f"| {what} | {beside}", *(found.get(kind, "") for kind in KINDS)]) + " |")
    return "\n".join(lines)


def _faces(numbers):
    sets = {"portraits": "portraits of 384x512", "scenes": "photos of several people"}
    for side, name in (("multihead", "MTCNN's nets"), ("yunet", "YuNet")):
        for kind, shown in sets.items() if side in numbers else ():
            low, middle, high = numbers[side][f"time_{kind}_keep_memory"]["times_faster"]
            yield f"face search, {name}, {shown}", "facenet-pytorch, one by one", low, middle, high


def _loader(numbers):
    for size, found in numbers.items():
        ratio = found["cache_times_user"]
        what = f"an epoch from the packed cache, photos of {size}"
        yield what, "DataLoader and cv2", ratio["low"], ratio["median"], ratio["high"]


def _train(numbers):
    for backbone, found in numbers["backbones"].items():
        yield f"training step, {backbone}, mode chosen", "eager f32", *_faster(found["faster"])


def _forward(numbers):
    yield "answers of tf_efficientnet_lite0, 224 px", "timm, eager", *_faster(numbers["answers"]["ours"]["faster"])


def _predict(numbers):
    for side, found in numbers["sides"].items():
        for glue, ratio in found.get("faster", {}).items():
            detector, _, runtime = side.removeprefix("ours, ").partition(", ")
            with_what = {"mtcnn": "MTCNN's nets", "yunet": "YuNet"}[detector] + (
                f", exported to {runtime}" if runtime else ""
            )
            yield f"`predict` with face crops, {with_what}", f"PIL, facenet-pytorch, timm ({glue})", *_faster(ratio)


def _export(numbers):
    for name, found in numbers["contenders"].items():
        if name.startswith("openvino") and name != "openvino f32":
            yield (
                f"{name}, 224 px, batches",
                "OpenVINO f32",
                *(found["quartiles"][0], found["ratio"], found["quartiles"][1]),
            )


def _faster(ratio):
    return ratio["quartiles"][0], ratio["ratio"], ratio["quartiles"][1]


def _rows(numbers, arm, share):
    return [row for row in numbers["scores"] if (row["arm"], row["hidden"], row["slice"]) == (arm, share, "all")]


STUDIED = ("mixing", "optimisers", "losses", "crops", "partial_labels", "heads_vs_flat")


def study(name):
    """One line an arm: the first's scores, and the others' differences to it."""
    frame = pd.read_csv(RESULTS / "studies" / f"{name}.csv")
    lines = ["| arm | 18 classes | difference | mask | gender | age |", "|---" * 6 + "|"]
    for place, (arm, rows) in enumerate(frame.groupby("arm", sort=False)):
        found = {row["metric"]: row for row in rows.to_dict("records")}
        parts = [found[f"{head}_f1"] for head in ("mask", "gender", "age")]
        joint = found["macro_f1"]
        cells = [arm, f"{joint['mean']:.3f}", heads_vs_flat.difference(joint) if place else ""]
        cells += [heads_vs_flat.difference(part) if place else f"{part['mean']:.3f}" for part in parts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def drawn_masks():
    """One line an arm: its mask F1 over the seeds, and the difference."""
    frame = pd.read_csv(RESULTS / "studies" / "drawn_masks.csv").query("metric == 'mask_f1'")
    lines = ["| arm | mask, mean (seeds) | difference |", "|---" * 3 + "|"]
    for place, row in enumerate(frame.to_dict("records")):
        told = f"{row['mean']:.3f} ({row['low_seed']:.3f}-{row['high_seed']:.3f})"
        lines.append(f"| {row['arm']} | {told} | {heads_vs_flat.difference(row) if place else ''} |")
    return "\n".join(lines)


MADE = {
    README: {"heads against flat": heads_against_flat, "hidden labels": hidden_labels, "speed": speed},
    STUDIES: {name: functools.partial(study, name) for name in STUDIED} | {"drawn_masks": drawn_masks},
}


if __name__ == "__main__":
    main()
