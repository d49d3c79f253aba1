"""An Optuna study that several processes share: what one that dies had begun, another does again.

A process holds a lock on a file of its own for as long as it lives, and the system frees it however the process ends.
A trial that runs under a free lock is therefore lost, and is put back in the queue with the same parameters. Databases
that machines without a common folder share use Optuna's heartbeat instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from multihead.files import cut_torn_line
from multihead.options import choice, option, whole

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

RETRIES = 3  # how often a trial is begun again after its process died
HEARTBEAT, GRACE = 20, 90  # seconds between two signs of life in a database, and until a silent process counts as dead
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True)
class Plan:
    """How a search is carried out; all processes of one study have the same folds.

    Raises: ValueError that names the field, what it holds and what was expected.
    """

    folds: int = option(3, "parts by person; the score of a trial is the mean over them")
    trials: int | None = option(
        None, "trials of the study, of all its processes together (default 20; with --minutes no limit)"
    )
    minutes: float | None = option(
        None, "start no trial after so many minutes; the one that runs is stopped and queued (default: no limit)"
    )
    storage: str | None = option(
        None,
        "database that processes share, as sqlite:///study.db (default: study.journal in the output folder)",
        metavar="URL",
    )
    study: str = option("multihead", "name of the study in the storage", metavar="NAME")
    pruner: str = option(
        "median",
        "which trials stop early: median (below the others' median), hyperband, none",
        metavar="{median,hyperband,none}",
    )
    workers: int = option(0, "loader processes", short="-j")

    def __post_init__(self) -> None:
        choice("plan", "pruner", self.pruner, PRUNERS)
        for name, least in {"folds": 2, "trials": 1, "workers": 0}.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole("plan", name, value, least))
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"plan: minutes is {self.minutes!r}; expected a number > 0")
        if self.storage is not None and "://" not in self.storage:
            raise ValueError(f"plan: storage is {self.storage!r}; expected a URL, as sqlite:///study.db")

    @property
    def limit(self) -> float:
        """How many trials the study has in the end."""
        if self.trials is None:
            return 20 if self.minutes is None else float("inf")
        return self.trials


class Lock:
    """A lock on a file, held by one process at a time and freed by the system when that process ends.

    Between machines it holds on a file system that shares `flock`: local ones, NFS 4.
    """

    def __init__(self, path: Path, begin: Callable[[], object] = lambda: None) -> None:
        self.path, self.begin = path, begin  # what each holder does first
        self.file: IO[bytes] | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False where another holds it."""
        import fcntl

        file = open(self.path, "ab")  # noqa: SIM115 (it stays open while the lock is held)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return False
        self.file = file
        try:
            self.begin()
        except BaseException:
            self.release()  # else this process would wait for itself
            raise
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Worker:
    """One process at a study, and its turns: only the process whose turn it is begins, queues or reports trials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workers"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.alive = Lock(self.folder / f"{self.name}.lock")

    def __enter__(self) -> Worker:
        self.alive.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.alive.path.unlink(missing_ok=True)
        self.alive.release()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Alone among the processes of this folder."""
        lock = Lock(self.folder / "turn")
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def died(self, name: str) -> bool:
        """True where the process of that name ended without giving its lock back."""
        path = self.folder / f"{name}.lock"
        if name == self.name or not name or not path.is_file():
            return name != self.name
        lock = Lock(path)
        free = lock.acquire(wait=False)
        if free:
            path.unlink(missing_ok=True)  # it may have ended just now, and removed it
        lock.release()
        return free


def need_optuna() -> None:
    """Nothing where Optuna is installed. Raises: ImportError with the way to install it."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError(f"the search needs Optuna ({error}); pip install 'multihead[tune]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log and without notes that what we use of it may change."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # a trial's failure is told by our table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(folder: Path, plan: Plan, seed: int) -> Study:
    """The study of the plan's storage, begun where there is none; its sampler draws unlike numbers in every process.

    Raises: ValueError for a storage that cannot be opened.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        study = optuna.create_study(
            study_name=plan.study, storage=_storage(folder, plan), direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError) as error:
        # without the URL, which may hold a password
        raise ValueError(f"plan: the storage cannot be opened: {str(error).splitlines()[0]}") from error
    except json.JSONDecodeError as error:
        journal = folder / "study.journal"
        raise ValueError(f"{journal} is damaged ({error}); put a copy back, or name another output folder") from error
    number = study.user_attrs.get("processes", 0)
    study.set_user_attr("processes", number + 1)
    # the same seed would propose again what the process before proposed
    study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + number, multivariate=True, constant_liar=True)
    study.pruner = _pruner(plan.pruner)
    return study


def _storage(folder: Path, plan: Plan) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if plan.storage is not None:
        return RDBStorage(plan.storage, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    journal = folder / "study.journal"
    # Optuna's own locks outlive a killed process, and it would write on in the line that a full disk tore
    lock: Any = Lock(folder / "workers" / "journal", lambda: cut_torn_line(journal))
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))


def _pruner(name: str) -> BasePruner:
    from optuna import pruners

    if name == "hyperband":
        return pruners.HyperbandPruner()
    return pruners.NopPruner() if name == "none" else pruners.MedianPruner(n_startup_trials=4)


def claim(study: Study, identity: Mapping[str, object]) -> None:
    """Mark the study as this search's. Raises: ValueError that names what differs where it is another's."""
    new = json.loads(json.dumps(identity, default=str))
    old = study.user_attrs.get("identity")
    if old is None:
        study.set_user_attr("identity", new)
        return
    changed = [
        f"{key} {old.get(key)!r}, now {new.get(key)!r}" for key in {**old, **new} if old.get(key) != new.get(key)
    ]
    if changed:
        raise ValueError(
            f"study {study.study_name!r} was begun with other settings ({'; '.join(changed)}); "
            "give the same ones to go on, or another output folder"
        )


def take_back(study: Study, worker: Worker) -> None:
    """Queue again, with the same parameters, every trial that ended without an answer and every one whose process
    died (no more than RETRIES times). To be called in the worker's turn."""
    import optuna
    from optuna.trial import TrialState

    if isinstance(study._storage, optuna.storages.JournalStorage):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if worker.died(trial.user_attrs.get("worker", "")):
                study.tell(trial.number, state=TrialState.FAIL)
    else:
        optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    done = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in done and attempts(trial) <= RETRIES:
            study.add_trial(_copy(trial))


def attempts(trial: FrozenTrial) -> int:
    """How often these parameters were begun and not answered because a process died, this trial's end included."""
    return int(trial.user_attrs.get("deaths", 0)) + ("reason" not in trial.user_attrs)


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """A waiting trial with the parameters of one that failed."""
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"again": trial.number, "deaths": attempts(trial)},
        # the parameters of a trial that was queued and died before it took them
        system_attrs={name: value for name, value in trial.system_attrs.items() if name == "fixed_params"},
    )
