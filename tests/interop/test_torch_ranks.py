"""fastdrop.torch under DistributedDataParallel: two processes on gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("torch without gloo", allow_module_level=True)

import torch_ranks  # noqa: E402
from torch_ranks import KINDS, SEEDS, SIZE, STEPS  # noqa: E402

import fastdrop  # noqa: E402

pytestmark = pytest.mark.torch
LIMIT = 60.0


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What every rank has saved, from one start of all."""
    folder = tmp_path_factory.mktemp("ranks")
    # The fastdrop that this process has, wherever it is installed.
    paths = filter(None, [str(Path(fastdrop.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    processes = [
        subprocess.Popen(
            [sys.executable, torch_ranks.__file__, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(SIZE)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", SEEDS)
def test_masks_follow_the_seed_of_the_rank(ranks, kind, seeds):
    """Equal where the seeds are equal, and only there; torch's own dropout is the first kind."""
    for (first, _), (second, _) in zip(*(rank[kind, seeds] for rank in ranks), strict=True):
        assert torch.equal(first, second) == (seeds == "shared")


def alone(kind, seeds):
    """The same training in one process: each rank in turn, then the mean of the gradients."""
    net = torch_ranks.model(kind)
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    states = [torch.Generator().manual_seed(seed).get_state() for seed in SEEDS[seeds]]
    for step in range(STEPS):
        optimiser.zero_grad()
        masks = []
        for rank in range(SIZE):
            torch.set_rng_state(states[rank])
            masks.append(torch_ranks.backward(net, kind, rank, step))
            states[rank] = torch.get_rng_state()
        for parameter in net.parameters():
            parameter.grad /= SIZE
        yield masks, torch_ranks.gradients(net)
        optimiser.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", SEEDS)
def test_gradients_are_the_mean_over_the_ranks(ranks, kind, seeds):
    courses = (rank[kind, seeds] for rank in ranks)
    for *together, (masks, expected) in zip(*courses, alone(kind, seeds), strict=True):
        for rank, (mask, gradients) in enumerate(together):
            assert torch.equal(mask, masks[rank])
            torch.testing.assert_close(gradients, expected)
            for ours, first in zip(gradients, together[0][1], strict=True):
                assert torch.equal(ours, first)
