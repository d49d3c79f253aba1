"""What every test finds: one thread, a cache of its own, drawn people, and the shared photos where they are."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when a test first imports it; never imported here

import pytest
from hypothesis import settings

# the same examples on every machine, and no folder of found ones
settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of this test alone: nothing is read from or written to the home; and one mode of computing."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("MULTIHEAD_MODE", "f32 channels_last keep_memory")  # timed modes change the last digits
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Twelve drawn people in the competition's layout, and two more in eval/: see multihead.synthetic.make."""
    from multihead.synthetic import make

    return make(tmp_path_factory.mktemp("people") / "data", count=12, seed=0, eval_people=2)


@pytest.fixture(scope="session")
def shared_data():
    """The real photos to develop against."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "index.csv").is_file():
        pytest.skip(f"no real photos at {folder}")
    return folder
