"""An epoch of loading from the packed cache, beside what a user writes around cv2.imread; one JSON line.

    python benchmarks/loader.py [--data DATA]

Photos of 384 x 512 and of 3000 x 4000 pixels are written to a temporary folder: drawn people, or those of --data. All
sides give batches of uint8 crops of 224 x 224, augmented as `Gentle` does, by two workers (threads for kept crops, else
processes): "user" reads, resizes and augments in a Dataset; "cache" is multihead with crops on disk, "decode" without
(each photo decoded every epoch, at a reduction). The epochs of the sides alternate; ratios are those of neighbours.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from record import record
from torch.utils.data import DataLoader, Dataset

from multihead.augment import Gentle
from multihead.batches import PhotoSet
from multihead.cache import Cache
from multihead.crops import FULL
from multihead.images import image_files, read_image, write_jpeg
from multihead.loading import loader
from multihead.orders import Shuffled
from multihead.reading import read
from multihead.synthetic import make

SIDE = 224
BATCHES = {"384x512": 32, "12MP": 8}  # so that two workers have several each
SIZES = {"384x512": (384, 512), "12MP": (3000, 4000)}


def main() -> None:
    """Print one JSON line with all sides, and check the claims that the documentation makes of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos to resize; without it people are drawn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help="epochs of each side")
    parser.add_argument("--photos", type=int, nargs=2, default=(2048, 48), help="small and large photos an epoch")
    arguments = parser.parse_args()
    numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        files = photos_of(arguments.data, Path(folder) / "people")
        for (name, size), count in zip(SIZES.items(), arguments.photos, strict=True):
            where = Path(folder) / name
            kilobytes = write(files, where, size, count)
            numbers[name] = {"photos": count, "kB_a_photo": kilobytes, **measure(where, arguments, BATCHES[name])}
    settings = {"crop": SIDE, "batch": BATCHES, "workers": arguments.workers, "rounds": arguments.rounds}
    settings |= {"photos": arguments.data.name if arguments.data else "drawn", "threads": torch.get_num_threads()}
    settings["omp"] = os.environ.get("OMP_NUM_THREADS")
    print(json.dumps(record("loader", settings, numbers)))
    small, large = (numbers[name]["cache_times_user"]["median"] for name in SIZES)
    assert small >= 2, f"photos of 384 x 512 load {small:.2f} times as fast as by hand; claimed: twice"
    assert large >= 10, f"photos of 12 megapixels load {large:.2f} times as fast as by hand; claimed: ten times"


def photos_of(data: Path | None, folder: Path) -> list[Path]:
    """Some photos to resize."""
    return image_files(data) if data else image_files(make(folder, count=12, seed=0) / "train")


def write(files: list[Path], folder: Path, size: tuple[int, int], count: int) -> int:
    """Write `count` unlike photos of one (width, height) or turned by a quarter as they are, in random order; mean kB.

    Each has a little noise of its own, so that no two are the same file.
    """
    rng, total = np.random.default_rng(0), 0
    folder.mkdir()
    for number in range(count):
        image = read_image(files[number % len(files)])
        turned = size if image.shape[0] >= image.shape[1] else size[::-1]
        image = cv2.resize(image, turned, interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 2, (*image.shape[:2], 1)).astype(np.int16)
        write_jpeg((image + noise).clip(0, 255).astype(np.uint8), folder / f"{number}.jpg", quality=90)
        total += (folder / f"{number}.jpg").stat().st_size
    (folder / "table.csv").write_text("path,mask\n" + "".join(f"{number}.jpg,worn\n" for number in range(count)))
    return round(total / count / 1000)


def measure(folder: Path, arguments: argparse.Namespace, batch: int) -> dict[str, object]:
    """Photos a second of each side, median and quartiles, and how many times as fast as the user's they are."""
    photos = read(folder / "table.csv")
    cached, plain = ours(photos, Cache(folder / "crops")), ours(photos, Cache(memory=0))
    started = time.perf_counter()
    cached.fill(arguments.workers)
    packing = time.perf_counter() - started
    sides = {"user": by_hand(photos.paths, batch, arguments.workers)}
    for name, held in (("cache", cached), ("decode", plain)):
        sides[name] = loader(held, Shuffled(range(len(photos)), batch), workers=arguments.workers)
    seconds = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            taken = epoch(sides[name])
            if number:  # the first starts the workers
                seconds[name].append(taken / (len(photos) // batch * batch))
    found = {name: spread(1 / np.array(each)) for name, each in seconds.items()}
    user = np.array(seconds["user"])
    ratios = {f"{name}_times_user": spread(user / np.array(seconds[name])) for name in ("cache", "decode")}
    once = {"packing_photos_per_s": round(len(photos) / packing, 1)}
    return {f"{name}_photos_per_s": each for name, each in found.items()} | ratios | once


def ours(photos, cache: Cache) -> PhotoSet:
    return PhotoSet(photos, (), [FULL.resized(SIDE)], augment=Gentle(), seed=0, cache=cache)


def epoch(batches) -> float:
    """Seconds of an epoch; every batch is looked at."""
    started, seen = time.perf_counter(), 0
    for batch in batches:
        images = batch if isinstance(batch, torch.Tensor) else next(iter(batch.images.values()))
        assert images.shape[1:] == (3, SIDE, SIDE) and images.dtype == torch.uint8
        seen += int(images[:, 0, 0, 0].sum())
    assert seen
    return time.perf_counter() - started


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": round(middle, 2), "low": round(low, 2), "high": round(high, 2)}


class ByHand(Dataset):
    """What a user writes: read, resize, augment, to tensor."""

    def __init__(self, paths: list[str]) -> None:
        import albumentations as A

        self.paths, setting = paths, Gentle()
        near = lambda reach: (1 - reach, 1 + reach)  # noqa: E731
        colours = {name: near(setting.color_jitter) for name in ("brightness", "contrast", "saturation")}
        move = A.Affine(
            scale=near(setting.scale),
            translate_percent=(-setting.shift, setting.shift),
            rotate=(-setting.rotate, setting.rotate),
            border_mode=cv2.BORDER_REFLECT_101,
            p=1,
        )
        self.change = A.Compose([A.HorizontalFlip(p=setting.hflip), move, A.ColorJitter(**colours, hue=(0, 0), p=0.8)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = cv2.cvtColor(cv2.imread(self.paths[row]), cv2.COLOR_BGR2RGB)
        image = self.change(image=cv2.resize(image, (SIDE, SIDE)))["image"]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def by_hand(paths: list[str], batch: int, workers: int) -> DataLoader:
    """The user's batches; OpenCV's own threads are off in the workers, as they are in ours: that is faster."""
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    start = (lambda _: cv2.setNumThreads(0)) if workers else None
    return DataLoader(ByHand(paths), batch, shuffle=True, drop_last=True, worker_init_fn=start, **options)


if __name__ == "__main__":
    main()
