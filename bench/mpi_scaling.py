"""How training scales over machines: a model, its constants, and what it says up to 1024 ranks.

``python -m bench.mpi_scaling`` reads ``docs/guide/scaling.json``, which ``python -m
bench.bench_mpi --json docs/guide/scaling.json`` has measured, writes the tables, and the sentences
with figures, into ``docs/guide/scaling.md`` and draws ``docs/guide/scaling.svg``.
"""

import itertools
import json
import math
import sys
from pathlib import Path

import numpy

from .bench_mpi import BARS, BATCH, NETWORKS, RATES, judged

__all__ = ["Link", "Model", "main", "sentences", "tables"]

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
# Numbers of a rank's header and outcome of a step, in bytes.
HEADER, OUTCOME = 16 * 8, 3 * 8
# Gradients of fewer bytes than this travel together.
SMALL = 1 << 16
# Processors of the machine on which it was measured.
PROCESSORS = 2
RANKS = [2**power for power in range(1, 11)]
ROWS = 128
AHEAD = (8, 64, 1024)


class Link:
    """What messages cost.

    Parameters
    ----------
    latency : float
        Seconds of an exchange between two ranks, whatever its size.
    bandwidth : float
        Bytes per second of one rank, summing included.
    """

    def __init__(self, latency, bandwidth):
        self.latency, self.bandwidth = latency, bandwidth

    @classmethod
    def measured(cls, sums):
        """The link that fits seconds of a sum of two ranks by its bytes."""
        sizes = {int(size): seconds for size, seconds in sums.items()}
        largest = max(sizes)
        latency = min(sizes.values())
        return cls(latency, largest / (sizes[largest] - latency))

    def sum(self, size, ranks):
        """Seconds of an Allreduce: up and down a tree of ranks, each byte there and back."""
        rounds = math.log2(ranks)
        return rounds * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth

    def gather(self, size, ranks):
        """Seconds of an Allgather of `size` bytes from every rank."""
        return math.log2(ranks) * self.latency + (ranks - 1) * size / self.bandwidth


# Assumed, not measured: what clusters commonly have.
LINKS = {
    "10 Gb/s Ethernet": Link(20e-6, 1.1e9),
    "100 Gb/s InfiniBand": Link(2e-6, 11e9),
}


class Model:
    """A step of one network at one rate.

    Parameters
    ----------
    units : tuple of int
        Of the network.
    rate : float
    compute : dict
        Seconds of a step on one processor by the rows of its batch.
    """

    def __init__(self, units, rate, compute):
        rows = numpy.array([int(count) for count in compute])
        # Relative errors count: small batches are as important as large ones.
        seconds = numpy.array(list(compute.values()))
        design = numpy.stack([1 / seconds, rows / seconds], axis=1)
        (self.fixed, self.per_row), *_ = numpy.linalg.lstsq(design, numpy.ones(len(rows)))
        kept = [units[0], *(unit * (1 - rate) for unit in units[1:-1]), units[-1]]
        weights = [4 * a * b for a, b in itertools.pairwise(kept)]
        self.large = [size for size in weights if size >= SMALL]
        self.together = sum(weights) - sum(self.large) + 4 * sum(kept[1:])

    @property
    def bytes(self):
        """Of all gradients of active weights."""
        return sum(self.large) + self.together

    def seconds(self, rows, ranks, link, sharing=1):
        """A step with `rows` rows on each rank; `sharing` ranks have one processor."""
        taken = sharing * (self.fixed + self.per_row * rows)
        return taken if ranks == 1 else taken + self.messages(ranks, link)

    def messages(self, ranks, link):
        """Seconds of a step that ranks spend on messages."""
        sums = sum(link.sum(size, ranks) for size in [*self.large, self.together])
        return sums + link.gather(HEADER, ranks) + link.gather(OUTCOME, ranks)

    def share(self, ranks, link):
        """Share of a step with ROWS rows on each rank that is spent computing."""
        return self.seconds(ROWS, 1, link) / self.seconds(ROWS, ranks, link)


def models(found):
    """The models by network and rate, and the link that was measured."""
    made = {
        (name, rate): Model(units, rate, found["1"]["compute"][f"{name} at {rate:g}"])
        for name, units in NETWORKS.items()
        for rate in RATES
    }
    return made, Link.measured(found["2"]["sums"])


def tables(found):
    """The page's tables, by name, as Markdown."""
    made, link = models(found)
    constants = [
        "| network | rate | fixed, ms | per row, µs | MB of gradients |",
        "|---|---|---|---|---|",
    ]
    checked = [
        "| network | rate | ranks | measured, ms | one rank, ms | times the rows | model, ms | "
        "model / measured | MB sent |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ahead = [
        "| network | rate | " + " | ".join(f"{name}, {n}" for name in LINKS for n in AHEAD)
        + " |",
        "|---|---|" + "---|" * len(AHEAD) * len(LINKS),
    ]  # fmt: skip
    for (name, rate), model in made.items():
        row = f"| {name} | {rate:g} | "
        constants.append(
            f"{row}{1e3 * model.fixed:.2f} | {1e6 * model.per_row:.1f} | {model.bytes / 1e6:.3f} |"
        )
        for ranks in (int(count) for count in found):
            step = found[str(ranks)]["steps"][f"{name} at {rate:g}"]
            says = model.seconds(BATCH / ranks, ranks, link, max(ranks / PROCESSORS, 1))
            checked.append(
                f"{row}{ranks} | {1e3 * step['together']:.2f} | {1e3 * step['alone']:.2f} | "
                f"{step['alone'] / step['together']:.2f} | {1e3 * says:.2f} | "
                f"{says / step['together']:.2f} | {step['bytes'] / 1e6:.3f} |"
            )
        shares = [
            f"{model.share(ranks, network):.0%}" for network in LINKS.values() for ranks in AHEAD
        ]
        ahead.append(row + " | ".join(shares) + " |")
    messages = (
        f"Measured between two ranks of this machine: {1e6 * link.latency:.1f} µs for an exchange, "
        f"{link.bandwidth / 1e9:.2f} GB/s for a sum."
    )
    return {
        "constants": "\n".join([messages, "", *constants]),
        "checked": "\n".join(checked),
        "ahead": "\n".join(ahead),
    }


def _percent(values):
    """The least and the largest of some shares."""
    least, largest = f"{100 * min(values):.0f}", f"{100 * max(values):.0f} %"
    return largest if f"{least} %" == largest else f"{least} to {largest}"


def sentences(found):
    """What the page says of the tables, by name, as Markdown; all figures are those measured."""
    made, link = models(found)
    name = next(iter(NETWORKS))
    large = [one for one in NETWORKS if max(NETWORKS[one]) >= 1024]

    def against_none(rate, of):
        return _percent([of(made[one, rate]) / of(made[one, 0.0]) for one in NETWORKS])

    falls = [
        f"* rate {rate:g}: time per row {against_none(rate, lambda one: one.per_row)}, fixed time "
        f"{against_none(rate, lambda one: one.fixed)}, bytes "
        f"{against_none(rate, lambda one: one.bytes)}"
        for rate in RATES[1:]
    ]

    def says(names, ranks):
        shares = []
        for one, rate in itertools.product(names, RATES):
            model, sharing = made[one, rate], max(ranks / PROCESSORS, 1)
            taken = found[str(ranks)]["steps"][f"{one} at {rate:g}"]["together"]
            shares.append(model.seconds(BATCH / ranks, ranks, link, sharing) / taken)
        return _percent(shares)

    off = [
        f"* {ranks} ranks: {says(large, ranks)} for the networks of 1024 and 2048 units,\n  "
        f"{says(set(NETWORKS) - set(large), ranks)} for the small one"
        for ranks in (2, 4)
    ]
    model, step = made[name, 0.5], found["2"]["steps"][f"{name} at 0.5"]
    goal, faster = BARS[2][2], judged(found)[2]
    taken, fixed, messages = (
        f"{1e3 * seconds:.1f} ms"
        for seconds in (step["together"], model.fixed, model.messages(2, link))
    )
    bar = [
        f"At a global batch of {BATCH} and rate 0.5, two ranks train {faster:.2f} times as many",
        f"rows of {name} per second as one; the goal of {goal} is",
        f"{'met' if faster >= goal else 'missed'}. Of their {taken}, {fixed} do not depend on the",
        "rows: every rank gathers the active weights and makes the whole update.",
        f"For messages the model has {messages}.",
    ]
    return {
        "falls": "\n".join(["Measured, of that at rate 0, over the networks:", "", *falls]),
        "off": "\n".join(["Model / measured:", "", *off]),
        "bar": "\n".join(bar),
    }


def draw(found, path):
    """Draw what the model says of many ranks."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "fastdrop"
    made, link = models(found)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    name = next(iter(NETWORKS))
    for (network, messages), style in zip(LINKS.items(), ("--", "-"), strict=True):
        for number, rate in enumerate(RATES):
            model = made[name, rate]
            more = [model.share(ranks, messages) for ranks in RANKS]
            look = {"linestyle": style, "color": f"C{number}"}
            axes[0].plot(RANKS, more, label=f"rate {rate:g}, {network}", **look)
            whole = made[name, 0.0].seconds(8192, 1, link)
            fixed = [whole / model.seconds(8192 / ranks, ranks, messages) for ranks in RANKS]
            axes[1].plot(RANKS, fixed, **look)
    axes[0].set(title=f"{ROWS} rows on every rank", ylabel="share of the time spent computing")
    axes[1].set(title="8192 rows in all", ylabel="times as fast as one rank at rate 0")
    axes[1].set_yscale("log", base=2)
    axes[0].legend(fontsize="small")
    for one in axes:
        one.set_xscale("log", base=2)
        one.set(xlabel="ranks")
        one.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def filled(text, parts):
    """A page with its tables and sentences between their marks."""
    for name, table in parts.items():
        begin, end = f"<!-- {name}: bench.mpi_scaling -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the page lacks the marks {begin!r} and {end!r}")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def main():
    """Write the tables, the sentences and the picture."""
    found = json.loads((GUIDE / "scaling.json").read_text())
    page = GUIDE / "scaling.md"
    page.write_text(filled(page.read_text(), tables(found) | sentences(found)))
    draw(found, GUIDE / "scaling.svg")


if __name__ == "__main__":
    sys.exit(main())
