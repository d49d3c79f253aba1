"""Two or more sides measured in turn, each in a process of its own, so that neither feels the other's settings."""

import multiprocessing
import os
import statistics
import time


class Side:
    """A process that makes its work once and then does it when asked.

    make: a function of this or another module that takes `settings` and gives a function without arguments, the work;
    its attribute `before`, where it has one, is called before each time, outside the clock.
    environment: variables set before anything is imported there, as OMP_NUM_THREADS.
    """

    def __init__(self, make, settings=None, environment=None):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in environment or {}}
        os.environ.update(environment or {})
        self.process = context.Process(target=_serve, args=(theirs, make, settings or {}), daemon=True)
        self.process.start()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        self.about = self._answer()

    def seconds(self):
        """How long the work takes now."""
        self.pipe.send("go")
        return self._answer()

    def _answer(self):
        kind, value = self.pipe.recv()
        if kind == "error":
            raise RuntimeError(value)
        return value

    def close(self):
        """End the process."""
        self.process.terminate()
        self.process.join()


def _serve(pipe, make, settings):
    try:
        work = make(**settings)
        pipe.send(("ready", getattr(work, "about", None)))
        while pipe.recv():
            getattr(work, "before", lambda: None)()
            started = time.perf_counter()
            work()
            pipe.send(("done", time.perf_counter() - started))
    except EOFError:
        pass
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def measure(sides, rounds, warm=1):
    """{name: [seconds]} of sides {name: Side}, in turn, forwards and backwards, after `warm` rounds."""
    times = {name: [] for name in sides}
    for number in range(warm + rounds):
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            seconds = sides[name].seconds()
            if number >= warm:
                times[name].append(seconds)
    return times


def faster(ours, theirs):
    """How many times as fast ours is as theirs: the median of the pairs' ratios, its quartiles and its interval.

    The interval holds the median of such ratios with 95 % or more, by the binomial distribution of order statistics,
    where there are six pairs or more; fewer cannot say that, and it is then all of them.
    """
    ratios = sorted(other / own for own, other in zip(ours, theirs, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "interval": [round(edge, 3) for edge in _interval(ratios)],
        "pairs": len(ratios),
    }


def _interval(ratios):
    """The narrowest pair of order statistics that holds the median in 95 % of samples, if there are enough."""
    from math import comb

    count = len(ratios)
    for rank in range((count - 1) // 2, -1, -1):
        outside = 2 * sum(comb(count, k) for k in range(rank + 1)) / 2**count
        if outside <= 0.05:
            return ratios[rank], ratios[count - 1 - rank]
    return ratios[0], ratios[-1]


def surroundings():
    """What both sides run under, for the record."""
    import torch

    return {"threads": torch.get_num_threads(), "cores": len(os.sched_getaffinity(0))}
