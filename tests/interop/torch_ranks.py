"""One rank of `test_torch_ranks.py`: trains with DistributedDataParallel on gloo, saves its course.

``python torch_ranks.py RANK FOLDER``
"""

import contextlib
import datetime
import os
import sys
import warnings

import torch
from torch import nn

import fastdrop.torch as ft

SIZE, STEPS = 2, 2
SEEDS = {"own": (7, 8), "shared": (7, 7)}  # of the ranks
KINDS = ("torch", "replaced", "patched", "linear")


def model(kind):
    """A perceptron with one kind of dropout, the same on every rank; the last but one layer drops.

    What this layer gets is nowhere 0, so that its output shows the mask.
    """
    torch.manual_seed(0)
    if kind == "linear":
        hidden = [ft.LinearDropout(20, 32, 0.5), ft.LinearDropout(32, 64, 0.5, None)]
    else:
        hidden = [nn.Linear(20, 64), nn.Tanh(), nn.Dropout(0.5)]
    net = nn.Sequential(*hidden, nn.Linear(64, 3))
    if kind == "replaced":
        ft.replace_dropout(net)
    return net


def context(kind):
    return ft.patched() if kind == "patched" else contextlib.nullcontext()


def batch(rank, step):
    return torch.randn(16, 20, generator=torch.Generator().manual_seed(10 * step + rank))


def backward(net, kind, rank, step):
    """One forward and backward pass of a rank; returns the mask of the last dropout."""
    masks = []
    last = (net.module if hasattr(net, "module") else net)[-2]
    hook = last.register_forward_hook(lambda *arguments: masks.append(arguments[-1] != 0))
    with context(kind):
        net(batch(rank, step)).square().sum().backward()
    hook.remove()
    return masks.pop()


def gradients(net):
    return [parameter.grad.clone() for parameter in net.parameters()]


def course(net, kind, rank, seed):
    """Train; returns the mask and the gradients of each step."""
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    torch.manual_seed(seed)
    found = []
    for step in range(STEPS):
        optimiser.zero_grad()
        found.append((backward(net, kind, rank, step), gradients(net)))
        optimiser.step()
    return found


def main(rank, folder):
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    warnings.simplefilter("error")  # such as of gradients in a layout that has to be copied
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=SIZE,
        timeout=datetime.timedelta(seconds=30),
    )
    found = {}
    for kind in KINDS:
        for seeds in SEEDS:
            net = nn.parallel.DistributedDataParallel(model(kind))
            found[kind, seeds] = course(net, kind, rank, SEEDS[seeds][rank])
    torch.distributed.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
