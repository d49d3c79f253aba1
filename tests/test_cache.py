import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import multihead.cache as module
from multihead.cache import Cache, Wanted, open_cache
from multihead.crops import BODY, FACE, FULL
from multihead.cutting import read_crops
from multihead.files import cache_folder, locked
from multihead.images import open_image

CROPS = (FULL.resized(24, 20), FACE.resized(16), BODY.resized(16))
BOX = (5.0, 6.0, 20.0, 24.0)


def draw(folder, count, seed=0):
    """Photos of noise; those with an even number have a box, every fourth is a tight face."""
    rng, wanted = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.jpg"
        Image.fromarray(rng.integers(0, 256, (40 + number % 3, 30, 3), np.uint8)).save(path)
        wanted.append(Wanted(str(path), None if number % 2 else BOX, number % 4 == 3))
    return wanted


@pytest.fixture
def photos(tmp_path):
    return draw(tmp_path / "photos", 9)


@pytest.fixture
def decoded(monkeypatch):
    """The files that were opened to be decoded."""
    found, plain = [], module.open_image
    monkeypatch.setattr(module, "open_image", lambda path: found.append(path) or plain(path))
    return found


def check(kept, photos, crops=CROPS):
    """That every row is kept as it is read from the photo, one by one and gathered."""
    assert kept.here.all() and kept.holds(np.arange(len(photos)))
    for row, photo in enumerate(photos):
        cuts, regions = read_crops(open_image(photo.path), crops, photo.box, photo.whole)
        assert kept.get(row)[1] == regions
        assert all(np.array_equal(left, right) for left, right in zip(kept.get(row)[0], cuts))
        assert kept.present(np.array([row])).tolist() == [[region is not None for region in regions]]
        for column in range(len(crops)):
            assert np.array_equal(gathered(kept, [row], column)[0], cuts[column])


def gathered(kept, rows, column):
    pictures = np.full((len(rows), *kept.crops[column].size, 3), 9, np.uint8)
    kept.gather(np.array(rows), column, pictures)
    return pictures


def packs(folder):
    return sorted(Path(folder).glob("*/*.pack"))


def test_crops_are_kept_as_they_are_read(photos, tmp_path, decoded, capsys):
    kept, reasons = Cache(tmp_path / "crops").keep(photos, CROPS, 2)
    assert reasons == {} and len(decoded) == len(photos)
    check(kept, photos)
    told = capsys.readouterr().err
    assert f"keeping crops, 1 MB, in {tmp_path / 'crops'}; --cache-folder" in told and "--no-cache" in told
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    assert len(decoded) == len(photos) and capsys.readouterr().err == ""  # a second run decodes and writes nothing
    assert len(packs(tmp_path / "crops")) == 3


def test_sets_share_what_each_wrote(photos, tmp_path, decoded):
    cache = Cache(tmp_path / "crops")
    cache.keep(photos[:5], CROPS[:1])
    cache.keep(photos[3:], CROPS[1:])
    kept, _ = Cache(tmp_path / "crops").keep(photos[::-1], CROPS)
    check(kept, photos[::-1])
    assert len(decoded) == 5 + 6 + (3 + 4)  # the last: 0 to 2 for face and body, 5 to 8 for the full crop
    rows = [0, 8, 4, 4, 1]  # of several packs
    for column in range(3):
        pictures = gathered(kept, rows, column)
        assert all(np.array_equal(pictures[at], kept.get(row)[0][column]) for at, row in enumerate(rows))


def test_memory_serves_where_there_is_no_folder(photos, decoded):
    cache = Cache()
    check(cache.keep(photos, CROPS)[0], photos)
    check(cache.keep(photos[4:], CROPS)[0], photos[4:])
    assert len(decoded) == len(photos)
    kept, reasons = Cache(memory=100).keep(photos, CROPS)
    assert not kept.here.any() and reasons == {} and kept.get(0) is None and not kept.holds(np.array([0]))


def test_a_changed_photo_or_box_is_decoded_again(photos, tmp_path, decoded):
    Cache(tmp_path / "crops").keep(photos, CROPS)
    old = os.stat(photos[2].path)
    Image.fromarray(np.full((41, 30, 3), 7, np.uint8)).save(photos[2].path)
    os.utime(photos[2].path, ns=(old.st_atime_ns, old.st_mtime_ns + 1))  # in the same second
    photos[4] = photos[4]._replace(box=(9.0, 6.0, 20.0, 24.0))
    decoded.clear()
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    assert decoded == [photos[2].path, photos[4].path]


def test_a_moved_collection_is_found_by_content(photos, tmp_path, decoded):
    Cache(tmp_path / "crops").keep(photos, CROPS)
    shutil.move(tmp_path / "photos", tmp_path / "elsewhere")
    moved = [photo._replace(path=photo.path.replace("photos", "elsewhere")) for photo in photos]
    decoded.clear()
    check(Cache(tmp_path / "crops").keep(moved, CROPS)[0], moved)
    assert decoded == []


def test_other_crops_are_other_pixels(photos, tmp_path):
    cache = Cache(tmp_path / "crops")
    for size in ((16, 16), (17, 16), (16, 17)):
        for margin in (0.25, 0.5):
            crops = [FACE.resized(*size).__class__("face", "face", margin, size)]
            check(cache.keep(photos, crops)[0], photos, crops)
    assert len(list((tmp_path / "crops").glob("face-*"))) == 6


def test_what_a_crop_shows_does_not_hang_on_the_others(tmp_path):
    """Together with a large crop a small one is cut from a finer decode: those are two pictures."""
    wanted = [Wanted(str(tmp_path / "a.jpg"), None, False)]
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (400, 400, 3), np.uint8)).save(wanted[0].path)
    small, large = FULL.resized(40), FULL.resized(300)
    for crops in ([small], [small, large], [large]):
        check(Cache(tmp_path / "crops").keep(wanted, crops)[0], wanted, crops)
        check(Cache(tmp_path / "crops").keep(wanted, crops)[0], wanted, crops)


def test_unreadable_photos_are_named_and_the_rest_kept(photos, tmp_path):
    Path(photos[1].path).write_bytes(b"")
    data = Path(photos[3].path).read_bytes()
    Path(photos[3].path).write_bytes(data[:200] + b"\0" * 100 + data[300:])
    Path(photos[5].path).unlink()
    photos[6] = photos[6]._replace(box=(100.0, 100.0, 120.0, 120.0))
    for cache in (Cache(tmp_path / "crops"), Cache(tmp_path / "crops"), Cache(), Cache(memory=0)):
        kept, reasons = cache.keep(photos, CROPS)
        assert {1, 5, 6} <= set(reasons) and all(repr(photos[row].path) in reasons[row] for row in reasons)
        assert "empty file" in reasons[1] and "no such file" in reasons[5] and "no area inside" in reasons[6]
        assert kept.here.tolist() == [cache.memory > 0 and row not in reasons for row in range(9)]


@pytest.mark.parametrize("memory", [0, module.MEMORY])
def test_pixels_that_cannot_be_decoded_are_named_wherever_crops_are_kept(photos, monkeypatch, memory):
    plain = module.cut_at

    def fail(photo, *arguments):
        if photo.name == repr(photos[2].path):
            raise ValueError(f"{photo.name}: damaged")
        return plain(photo, *arguments)

    monkeypatch.setattr(module, "cut_at", fail)
    kept, reasons = Cache(memory=memory).keep(photos, CROPS)
    assert reasons == {2: f"{photos[2].path!r}: damaged"} and not kept.here[2] and kept.here[1] == (memory > 0)


def test_a_photo_that_changes_while_it_is_read_is_not_kept(photos, tmp_path, monkeypatch):
    plain = module.cut_at

    def change(photo, *arguments):
        if photo.name == repr(photos[2].path):
            Image.fromarray(np.zeros((42, 30, 3), np.uint8)).save(photos[2].path)
        return plain(photo, *arguments)

    monkeypatch.setattr(module, "cut_at", change)
    kept, reasons = Cache(tmp_path / "crops").keep(photos, CROPS)
    assert list(reasons) == [2] and "changed while it was read" in reasons[2] and not kept.here[2]


# ---- damage


@pytest.mark.parametrize("harm", ["cut", "flipped", "table", "empty", "other"])
def test_a_damaged_pack_is_never_believed(photos, tmp_path, capsys, decoded, harm):
    folder = tmp_path / "crops"
    Cache(folder).keep(photos, CROPS[:1])
    (pack,) = packs(folder)
    data = bytearray(pack.read_bytes())
    if harm == "flipped":
        data[24 * 20 * 3 * 4 + 5] ^= 1
    elif harm == "table":
        data[-40] ^= 1
    pack.write_bytes({"cut": data[:-30], "empty": b"", "other": b"x" * 9999}.get(harm, bytes(data)))
    decoded.clear(), capsys.readouterr()
    check(Cache(folder).keep(photos, CROPS[:1])[0], photos, CROPS[:1])
    told = capsys.readouterr().err
    assert str(pack) in told and "decoded again" in told and not pack.exists()
    assert len(decoded) == 9
    check(Cache(folder).keep(photos, CROPS[:1])[0], photos, CROPS[:1])
    assert len(decoded) == 9


@pytest.mark.parametrize("harm", [b"", b"nonsense", None])
def test_a_damaged_index_is_not_used(photos, tmp_path, decoded, harm):
    aged(photos)
    Cache(tmp_path / "crops").keep(photos, CROPS)
    index = tmp_path / "crops" / "contents"
    data = index.read_bytes()
    index.write_bytes(data[:25] + bytes([data[25] ^ 1]) + data[26:] if harm is None else harm)
    decoded.clear()
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    assert decoded == [] and index.read_bytes() != harm


def test_the_folder_may_go_at_any_time(photos, tmp_path, decoded):
    folder = tmp_path / "crops"
    cache = Cache(folder)
    kept, _ = cache.keep(photos, CROPS)
    shutil.rmtree(folder)
    check(kept, photos)  # what is mapped stays
    check(cache.keep(photos, CROPS)[0], photos)
    check(Cache(folder).keep(photos, CROPS)[0], photos)
    assert len(packs(folder)) == 3


def aged_packs(folder):
    """The packs as after a long pause."""
    long_ago = time.time() - (module.UNUSED + 1) * 86400
    for path in packs(folder):
        os.utime(path, (long_ago, long_ago))
    return packs(folder)


def test_what_no_run_has_read_for_long_is_deleted_when_others_are_written(photos, tmp_path, decoded, capsys):
    folder = tmp_path / "cache"
    for part in (photos[:2], photos[2:3]):
        Cache(folder).keep(part, CROPS)
    before = len(aged_packs(folder))
    Cache(folder).keep(photos[:2], CROPS)  # nothing is written, and what is read is young again
    assert len(packs(folder)) == before and "deleted" not in capsys.readouterr().err
    young = [path for path in packs(folder) if time.time() - path.stat().st_mtime < 3600]
    assert len(young) == len(CROPS)
    aged_packs(folder)
    decoded.clear()
    kept, _ = Cache(folder).keep([*photos[:2], photos[4]], CROPS)  # what this run reads stays
    check(kept, [*photos[:2], photos[4]])
    assert "deleted crops that no run has read for 60 days, 1 MB" in capsys.readouterr().err
    assert len(packs(folder)) == before and len(decoded) == 1
    decoded.clear()
    Cache(folder).keep(photos[:2], CROPS)
    assert not decoded
    Cache(folder).keep(photos[2:3], CROPS)
    assert len(decoded) == 1


def test_packs_stay_of_photos_whose_other_crops_are_missing(photos, tmp_path):
    folder = tmp_path / "cache"
    Cache(folder).keep(photos, CROPS[:1])
    (old,) = aged_packs(folder)
    kept, _ = Cache(folder).keep(photos, CROPS)
    check(kept, photos)
    assert old in packs(folder) and old in [pack.path for pack in kept.packs]


def test_files_that_only_are_called_packs_are_not_deleted(photos, tmp_path):
    folder = tmp_path / "cache"
    others = [folder / "textures" / name for name in ("a.pack", "b.pack")]
    others[0].parent.mkdir(parents=True)
    others[0].write_bytes(b"PACK of something else, long enough to end otherwise")
    others[1].write_bytes(b"short")
    assert aged_packs(folder) == others
    Cache(folder).keep(photos, CROPS)
    assert len(packs(folder)) == len(others) + len(CROPS) and all(path.exists() for path in others)


def aged(photos):
    """Photos that were not written just now: their digests are remembered."""
    for photo in photos:
        os.utime(photo.path, (time.time() - 60,) * 2)


def test_files_are_read_once(photos, tmp_path, monkeypatch):
    import multihead.contents as contents

    aged(photos)
    opened, plain = [], contents.open_image
    monkeypatch.setattr(contents, "open_image", lambda path: opened.append(path) or plain(path))
    Cache(tmp_path / "crops").keep(photos, CROPS)
    assert opened == [photo.path for photo in photos]
    kept, _ = Cache(tmp_path / "crops").keep(photos, CROPS)
    assert len(opened) == 9
    check(kept, photos)


# ---- no room


def test_a_disk_without_room_is_a_note(photos, tmp_path, monkeypatch, capsys):
    needed = 9 * 3 * 24 * 20
    free = lambda count: lambda path: shutil._ntuple_diskusage(10**12, 0, count)  # noqa: E731
    monkeypatch.setattr(module.shutil, "disk_usage", free(2 * needed - 1))
    check(Cache(tmp_path / "crops").keep(photos, CROPS[:1])[0], photos, CROPS[:1])  # in memory
    assert "half of the free disk is 1 MB" in capsys.readouterr().err and not packs(tmp_path / "crops")
    monkeypatch.setattr(module.shutil, "disk_usage", free(2 * needed))
    Cache(tmp_path / "crops", limit=needed - 1).keep(photos, CROPS[:1])
    assert "--no-cache" in capsys.readouterr().err and not packs(tmp_path / "crops")
    Cache(tmp_path / "crops", limit=needed).keep(photos, CROPS[:1])
    assert len(packs(tmp_path / "crops")) == 1


def test_a_file_where_the_folder_should_be_is_a_note(photos, tmp_path, capsys):
    (tmp_path / "crops").write_text("")
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    assert f"crops are not kept in {tmp_path / 'crops'}: File exists" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_note_and_nothing_is_announced(photos, tmp_path, capsys):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "lock").symlink_to(tmp_path / "nowhere" / "lock")  # root may write where rights forbid it
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    told = capsys.readouterr().err
    assert f"crops are not kept in {tmp_path / 'crops'}: No such file" in told and "keeping crops" not in told


# keeps crops in a process whose files may not grow past 20 kB, as on a disk that fills up
LIMITED = """
import resource, signal, sys
from pathlib import Path
import test_cache
from multihead.cache import Cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
test_cache.module._CHUNK, test_cache.module.PIECE = 4, 1
photos = test_cache.draw(Path(sys.argv[1]) / "photos", 30)
kept, reasons = Cache(Path(sys.argv[1]) / "crops").keep(photos, test_cache.CROPS)
test_cache.check(kept, photos)
assert reasons == {}
"""


def test_a_disk_that_fills_up_keeps_what_is_whole(tmp_path):
    photos = draw(tmp_path / "photos", 30)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{here.parent}"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr or packs(tmp_path / "crops")
    assert not list((tmp_path / "crops").glob("*/*.part"))
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)


def test_an_interruption_keeps_what_is_whole(tmp_path, monkeypatch, decoded):
    photos = draw(tmp_path / "photos", 12)
    monkeypatch.setattr(module, "_CHUNK", 4)
    plain = module.cut_at

    def stop(*arguments):
        if len(decoded) > 8:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(module, "cut_at", stop)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path / "crops").keep(photos, CROPS)
    monkeypatch.setattr(module, "cut_at", plain)
    decoded.clear()
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)
    assert len(decoded) == 4


# ---- several processes

PACK = """
import itertools, sys, time
import multihead.cache as module
from multihead.cache import Cache, Wanted
from test_cache import CROPS, check
folder, count, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
photos = [Wanted(f"{sys.argv[4]}/{n}.jpg", None if n % 2 else (5.0, 6.0, 20.0, 24.0), n % 4 == 3) for n in range(count)]
module._CHUNK, module.PIECE, done, plain = 4, 20_000, itertools.count(1), module.cut_at
def cut(*arguments):
    number = next(done)  # one thread only is the 22nd
    time.sleep(0.05 * (stop == "slow"))
    if stop == "stop" and number == 22:
        print("half", flush=True)
        time.sleep(60)
    return plain(*arguments)
module.cut_at = cut
print("ready", flush=True)
sys.stdin.readline()
kept, reasons = Cache(folder).keep(photos, CROPS, 2)
assert not reasons
check(kept, photos)
print(next(done) - 1)
"""


def start(folder, count, photos, stop=""):
    command = [sys.executable, "-c", PACK, str(folder), str(count), stop, str(photos)]
    here = str(Path(__file__).parent)
    path = {"PYTHONPATH": f"{here}:{Path(here).parent}"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **path},
    )


def test_processes_at_once_decode_each_photo_once(tmp_path):
    draw(tmp_path / "photos", 40)
    working = [start(tmp_path / "crops", 40, tmp_path / "photos", "slow") for _ in range(3)]
    assert [process.stdout.readline() for process in working] == ["ready\n"] * 3  # so that they begin together
    for process in working:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120) for process in working]
    assert [process.returncode for process in working] == [0, 0, 0], told
    assert sorted(int(text) for text, _ in told) == [0, 0, 40]


def test_a_writer_killed_in_the_middle_leaves_nothing_half(tmp_path):
    photos = draw(tmp_path / "photos", 40)
    killed = start(tmp_path / "crops", 40, tmp_path / "photos", "stop")
    killed.stdin.write("\n")
    killed.stdin.flush()
    assert [killed.stdout.readline() for _ in range(2)] == ["ready\n", "half\n"]
    with locked(tmp_path / "crops" / "lock") as mine:
        assert not mine
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert list((tmp_path / "crops").glob("*/*.part")) and packs(tmp_path / "crops")
    finished = start(tmp_path / "crops", 40, tmp_path / "photos")
    told = finished.communicate("\n", timeout=120)
    assert finished.returncode == 0, told
    assert 0 < int(told[0].split()[-1]) < 40 and not list((tmp_path / "crops").glob("*/*.part"))
    check(Cache(tmp_path / "crops").keep(photos, CROPS)[0], photos)


# ---- names


def test_a_cache_is_named_by_its_argument(tmp_path):
    assert open_cache(True).folder == cache_folder() / "crops"
    assert open_cache(False).folder is None and open_cache(str(tmp_path)).folder == tmp_path
    cache = Cache()
    assert open_cache(cache) is cache


@pytest.mark.parametrize(
    "flags, folder", [([], "default"), (["--cache-folder", "here"], Path("here")), (["--no-cache"], None)]
)
@pytest.mark.parametrize("verb", ["train", "folds", "compare", "tune", "lr-range"])
def test_the_command_line_names_the_cache(verb, flags, folder):
    from multihead import flags as parsing
    from multihead.cli import _parser
    from multihead.settings import Keeping

    args = _parser([verb]).parse_args([verb, "data", *flags])
    cache = parsing.build(Keeping, vars(args)).opened()
    assert cache.folder == (cache_folder() / "crops" if folder == "default" else folder)


regions = st.tuples(*[st.integers(0, 99_999)] * 4)
parts = st.tuples(st.binary(min_size=16, max_size=16), regions, st.sampled_from([1, 2, 4, 8]))


@given(parts, parts)
def test_keys_are_equal_only_for_equal_parts(one, other):
    keys = [
        module._key(module.Content(digest, (9, 9)), region, reduction) for digest, region, reduction in (one, other)
    ]
    assert (keys[0] == keys[1]) == (one == other) and len(keys[0]) == 16
