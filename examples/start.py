"""How the other examples start: the words of their command line, drawn people for want of photos, errors in a line."""

import contextlib
import inspect
import sys
from pathlib import Path

from multihead.synthetic import make


def start(main, people=120):
    """Call main(photos), or main(photos, out) where it takes an `out`, with PHOTOS and OUTPUT of the command line.

    PHOTOS: by default so many drawn people under runs/. OUTPUT: by default runs/<example>-<name of PHOTOS>, so that
    runs on unlike photos do not meet in one folder.
    """
    writes = "out" in inspect.signature(main).parameters
    given = words(0, 2 if writes else 1)
    drawn = Path(f"runs/people{people}")
    with told():
        photos = given[0] if given else make(drawn, people) / "train"
        name = Path(given[0]).resolve().name.removesuffix(".csv") if given else drawn.name
        if writes:
            main(photos, out=given[1] if len(given) > 1 else f"runs/{Path(sys.argv[0]).stem}-{name}")
        else:
            main(photos)


def words(least, most):
    """The words of the command line; where there are fewer or more, or a flag, the example's docstring ends it."""
    given = sys.argv[1:]
    if not least <= len(given) <= most or any(word.startswith("-") for word in given):
        sys.exit(sys.modules["__main__"].__doc__)
    return given


@contextlib.contextmanager
def told():
    """Inside, an error that tells the user what to do ends the example with its message, as `multihead` does."""
    try:
        yield
    except (ValueError, KeyError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.exit(f"{Path(sys.argv[0]).stem}: error: {text}")
