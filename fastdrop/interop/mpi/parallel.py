"""`DataParallel`: one network on all ranks, trained on the rows of all of them."""

import os

import numpy
from mpi4py import MPI

import fastdrop.checkpoint
from fastdrop._backend import kernels
from fastdrop._version import __version__
from fastdrop.callers import warn_caller
from fastdrop.config import get_num_threads
from fastdrop.interop.mpi.batch import GlobalBatch
from fastdrop.interop.mpi.losses import checked
from fastdrop.interop.mpi.ranks import Ranks
from fastdrop.nn import Sequential

__all__ = ["TIMEOUT", "DataParallel", "check_same", "warn_of_threads"]

TIMEOUT = 300.0


class DataParallel:
    """Synchronous data-parallel training: every rank trains the same network on rows of its own.

    The batch of a step is the rows of all ranks, those of rank 0 first, and the step is the one
    that a single process would make with that batch, but for the rounding of sums: each rank has
    its window of masks per row or per group of rows, all ranks have the same masks of units, and no
    message is needed for either. Gradients are summed over the active weights only, while the
    backward pass of earlier layers goes on.

    Parameters
    ----------
    net : nn.Sequential
        Made alike on all ranks. Its weights and mask streams become those of rank 0.
    opt : optim.SGD, optim.Adam or optim.AdamW
        Of the network's parameters, made alike on all ranks; its state becomes rank 0's.
    comm : mpi4py.MPI.Intracomm, optional
        ``MPI.COMM_WORLD`` by default.
    timeout : float, optional
        Seconds. A rank that waits longer for another asks who is there and raises `RankError`,
        which names the ranks that do not answer. Choose it longer than anything that one rank does
        alone between two steps, such as reading data.

    Attributes
    ----------
    net, opt
    rank, size : int
        This process, and how many there are.
    bytes_sent : int
        Bytes that this rank has handed to MPI's collective operations since the communicator was
        first used: gradients and all other messages.

    Raises
    ------
    TypeError
        On all ranks, if `net` is no Sequential or `opt` no optimiser on one.
    ValueError
        On all ranks, if `opt` is not for the parameters of `net`, or the ranks have different
        networks, optimisers, releases of fastdrop or instruction sets: by rank.

    Notes
    -----
    The constructor and all methods are collective: all ranks call them, in the same order.

    An error that is found before gradients are computed (data, labels, a loss or its gradient that
    is not finite) is raised on all ranks and names the rank that has it; nothing has changed, and
    training may go on. After any other error, on one rank, the others raise `RankError` as soon as
    they wait for it, and as the program ends all processes are ended; the constructor, too, waits
    no longer than the timeout. Ctrl-C lets the step end; then all ranks raise KeyboardInterrupt.

    Give every rank its share of the machine's processors by ``FASTDROP_NUM_THREADS`` and
    ``OPENBLAS_NUM_THREADS``, or the variable of another BLAS.

    References
    ----------
    .. [1] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
       submatrices", arXiv 1502.02478 (2015), section 2.

    Examples
    --------
    Started by ``mpiexec -n 4 python train.py``, or by ``python train.py`` as one process:

    >>> import numpy
    >>> from fastdrop import mpi, nn, optim
    >>> net = nn.Sequential([nn.Dense(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Dense(32, 2)], rng=0)
    >>> parallel = mpi.DataParallel(net, optim.SGD(net, learning_rate=0.1))
    >>> rows = slice(16 * parallel.rank, 16 * (parallel.rank + 1))
    >>> x = numpy.random.default_rng(0).standard_normal((16 * parallel.size, 8))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> values = [parallel.step(x[rows], y[rows], nn.SoftmaxCrossEntropy()) for _ in range(50)]
    >>> values[-1] < values[0] / 2
    True
    """

    def __init__(self, net, opt, comm=None, *, timeout=TIMEOUT):
        self._timeout = timeout
        self._ranks = Ranks.of(comm, timeout, "DataParallel")
        error = None
        try:
            _check(net, opt)
        except (TypeError, ValueError) as caught:
            error = caught
        self._ranks.agree(error)
        check_same(self._ranks, _description(net, opt))
        warn_of_threads(self._ranks)
        self.net, self.opt = net, opt
        self._batch = GlobalBatch(self._ranks, net, [opt])
        self._adopt()

    rank = property(lambda self: self._ranks.rank, doc="int: this process.")
    size = property(lambda self: self._ranks.size, doc="int: how many processes there are.")
    bytes_sent = property(lambda self: self._ranks.sent, doc="int: handed to collectives so far.")

    def _begin(self, doing):
        self._ranks.timeout = self._timeout
        self._ranks.begin(doing)

    def _adopt(self):
        """Take over the state of rank 0."""
        state = None
        if self.rank == 0:
            state = self.net.state_dict(), self.opt.state_dict()
        state = self._ranks.broadcast(state)
        if self.rank != 0:
            self.net.load_state_dict(state[0])
            self.opt.load_state_dict(state[1])

    def step(self, x_rows, y_rows, loss, sample_weight=None):
        """Train on one batch, the rows of all ranks.

        Parameters
        ----------
        x_rows : array_like of real numbers, shape (rows, ...)
            This rank's. Ranks may have different numbers of rows, or none, all else being equal.
        y_rows : array_like, shape (rows, ...)
            What `loss` wants.
        loss : callable
            ``loss(prediction, y_rows) -> (value, grad)`` with the mean over the rows and its
            gradient, such as an `nn.Loss`. Not called where a rank has no rows.
        sample_weight : array_like of real numbers, shape (rows,), optional
            Third argument of `loss`, which then returns the weighted mean; on all ranks or on none.

        Returns
        -------
        float
            The mean of the loss over the rows of all ranks; the same on all.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            On all ranks, with the rank that has the error: if data do not fit the network or the
            loss, differ in shape from rank to rank, or no rank has rows; if the loss or its
            gradient is not finite, or the gradient has another shape than the prediction; if the
            ranks have done different steps or have different learning rates.
        RankError
            If another rank failed in some other way, or does not come within the timeout.
        KeyboardInterrupt
            On all ranks, if one was interrupted. Every rank has done the same steps.
        """
        self._begin(f"step {self.opt.steps}")
        with self._batch.step(x_rows, y_rows, checked(loss), sample_weight) as (value, _):
            self.opt.step()
        return value

    def save(self, path):
        """Write network and optimiser to a file, which rank 0 does; see `fastdrop.save`.

        Parameters
        ----------
        path : str or os.PathLike
            On rank 0; the other ranks' is not looked at.

        Raises
        ------
        OSError, TypeError
            On all ranks, if rank 0 cannot write it.
        """
        self._begin("save")
        error = None
        if self.rank == 0:
            try:
                fastdrop.checkpoint.save(path, self.net, self.opt)
            except Exception as caught:
                error = caught
        self._ranks.agree(error)

    def load(self, path):
        """Go on where a file was saved, by this or by another number of ranks.

        Parameters
        ----------
        path : str or os.PathLike
            On rank 0, which reads it and hands it to the others; theirs is not looked at.

        Raises
        ------
        OSError, ValueError
            On all ranks, if rank 0 cannot read it, or it does not fit. Nothing is changed then.
        """
        self._begin("load")
        error = None
        if self.rank == 0:
            try:
                fastdrop.checkpoint.load(path, self.net, self.opt)
            except Exception as caught:
                error = caught
        self._ranks.agree(error)
        self._adopt()

    def __repr__(self):
        return f"DataParallel({self.net!r}, {self.opt!r}, rank {self.rank} of {self.size})"


def _check(net, opt):
    if not isinstance(net, Sequential):
        raise TypeError(f"net must be a fastdrop.nn.Sequential, got {type(net).__name__}")
    parameters = getattr(opt, "parameters", None)
    if not isinstance(parameters, list | tuple) or not hasattr(opt, "load_state_dict"):
        raise TypeError(f"opt must be an optimiser of fastdrop.optim, got {type(opt).__name__}")
    mine = {id(parameter) for parameter in net.parameters()}
    others = [parameter.name for parameter in parameters if id(parameter) not in mine]
    if others:
        raise ValueError(f"opt must be for parameters of net, got others: {', '.join(others)}")


def _description(net, opt):
    """What has to be the same on all ranks, as pairs of a name and a text."""
    lines = [("the number of layers", str(len(net.layers)))]
    lines += [(layer.name, _shown(layer)) for layer in net.layers]
    lines += [(p.name, f"shape {p.value.shape} and {p.value.dtype}") for p in net.parameters()]
    lines += [("optimiser", repr(opt) if not callable(opt.learning_rate) else type(opt).__name__)]
    lines += [
        (name, f"shape {numpy.shape(value)}") for name, value in sorted(opt.state_dict().items())
    ]
    return lines


def _shown(layer):
    """A layer as it shows itself, or its class where it shows no more than its address."""
    own = type(layer).__repr__ is not object.__repr__
    return repr(layer) if own else type(layer).__qualname__


def check_same(ranks, lines):
    """Refuse ranks of different descriptions.

    Parameters
    ----------
    ranks : Ranks
    lines : list of (str, str)
        What is compared, and what this rank has. The release and the instruction set of fastdrop
        are compared as well.

    Raises
    ------
    ValueError
        On all ranks, with the first rank and the first line that differ from rank 0's.
    """
    # Instruction sets round differently, so that the ranks' weights would drift apart.
    own = [("fastdrop", __version__), ("FASTDROP_ISA", kernels.isa_used()), *lines]
    everybody = ranks.gather_objects(own)
    for rank, others in enumerate(everybody):
        for number, (name, what) in enumerate(others):
            first = everybody[0][number] if number < len(everybody[0]) else (name, "nothing")
            if (name, what) != first:
                ranks.refuse(
                    f"the ranks must agree on {name}: rank {rank} has {what}, rank 0 has {first[1]}"
                )
        if len(others) != len(everybody[0]):
            ranks.refuse(f"the ranks must agree on their parameters: rank {rank} has fewer")


def warn_of_threads(ranks):
    """Warn once, on rank 0, where ranks of one machine have more threads than it has processors."""
    if ranks.warned:
        return
    ranks.warned = True
    machines = ranks.gather_objects(MPI.Get_processor_name())
    together = machines.count(machines[ranks.rank])
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:
        processors = os.cpu_count() or 1
    threads = get_num_threads()
    if ranks.rank == 0 and threads > 1 and together * threads > processors:
        warn_caller(
            f"{together} ranks of {threads} threads share {processors} processors: set "
            f"FASTDROP_NUM_THREADS and OPENBLAS_NUM_THREADS to {max(processors // together, 1)}"
        )
