import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multihead import ranks

TWO = """
import sys, torch
from pathlib import Path
from multihead import ranks
from multihead.crops import FULL

ranks.start()
folder = Path(sys.argv[1])
assert ranks.world() == 2 and ranks.first() == (ranks.rank() == 0)
assert ranks.gather(("object", ranks.rank())) == [("object", 0), ("object", 1)]

def work():
    path = folder / "work.txt"
    if ranks.first():
        assert not path.exists()
        path.write_text("done")
    return path.read_text()  # the second comes when the first has written

assert ranks.first_then_rest(work) == "done"
try:
    ranks.first_then_rest(lambda: 1 / 0)
except ZeroDivisionError:
    (folder / f"raised{ranks.rank()}").touch()

model = torch.nn.BatchNorm1d(2)
model.running_mean.fill_(float(ranks.rank() + 1))
ranks.share_buffers(model)
assert model.running_mean.tolist() == [1.0, 1.0]

model.crops = (FULL,)
wrapped = ranks.parallel(model)
wrapped(torch.full((2, 2), float(ranks.rank())) * torch.tensor([[1.0], [3.0]])).sum().backward()
grads = ranks.gather(model.weight.grad.tolist())
assert grads[0] == grads[1]

own = torch.nn.Parameter(torch.zeros(2))
if ranks.first():  # the other process has no gradient: that counts as zero
    own.grad = torch.tensor([3.0, -1.0])
ranks.average_gradient(own)
assert own.grad.tolist() == [1.5, -0.5]
own.grad += ranks.rank()
ranks.average_gradient(own)
assert own.grad.tolist() == [2.0, 0.0]
ranks.wait()
(folder / f"ok{ranks.rank()}").touch()
"""


def test_one_process_is_first_and_waits_for_nobody():
    ranks.start()
    assert (ranks.world(), ranks.rank(), ranks.first()) == (1, 0, True)
    ranks.wait()
    assert ranks.first_then_rest(lambda: 5) == 5
    assert ranks.gather("a") == ["a"]


def test_one_process_needs_no_wrapper():
    model = object()
    assert ranks.parallel(model) is model
    ranks.share_buffers(model)


def test_one_process_keeps_its_gradient():
    parameter = torch.nn.Parameter(torch.zeros(2))
    ranks.average_gradient(parameter)
    assert parameter.grad is None
    parameter.grad = torch.tensor([1.0, 2.0])
    ranks.average_gradient(parameter)
    assert parameter.grad.tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_two_processes(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(ranks.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, tmp_path / "two.py", tmp_path], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert {path.name for path in tmp_path.iterdir()} >= {"ok0", "ok1", "raised0", "raised1", "work.txt"}
