"""Text of the demo: the table, its legend and its conclusion."""

import shutil
import textwrap

import numpy

__all__ = ["by_kind", "conclusion", "legend", "table", "wrapped"]

# Longer lines are hard to read, however wide the terminal is.
WIDEST = 100


def wrapped(text):
    """Break paragraphs, one a line, where the terminal ends; 80 columns where there is none."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return "\n".join(textwrap.fill(line, max(width, 20)) for line in text.splitlines())


def by_kind(runs, kinds):
    """The runs of every kind that has some, in the order of `kinds`."""
    found = {kind: [run for run in runs if run.kind == kind] for kind in kinds}
    return {kind: rows for kind, rows in found.items() if rows}


def table(groups):
    """The table, one row per kind: means over the seeds and the spread of the test accuracy.

    Parameters
    ----------
    groups : dict
        As `by_kind` returns.

    Returns
    -------
    str
    """
    several = max(len(rows) for rows in groups.values()) > 1
    lines = [
        f"{'':18}{'training':>11}{'test accuracy':>20}{'gap':>9}{'seconds':>10}{'runs':>6}",
        f"{'':18}{'accuracy':>11}{'(+- std. dev.)' if several else '':>20}{'':>9}{'per run':>10}",
    ]
    for rows in groups.values():
        training = 100 * numpy.mean([run.training for run in rows])
        tests = [100 * run.test for run in rows]
        spread = f" +- {numpy.std(tests, ddof=1):.1f}" if len(rows) > 1 else ""
        lines.append(
            f"{rows[0].label:18}{training:>9.1f} %"
            f"{f'{numpy.mean(tests):.1f} %{spread}':>20}"
            f"{training - numpy.mean(tests):>9.1f}"
            f"{_seconds(rows):>10.2f}{len(rows):>6}"
        )
    return "\n".join(lines)


def legend(groups, rows_per_mask, batch):
    """Explain the words and the seconds of the table.

    Parameters
    ----------
    groups : dict
        As `by_kind` returns.
    rows_per_mask : dict
        By kind; None without dropout.
    batch : int
        Examples of a batch.
    """
    sharing = {1: "for each example", "batch": f"for the whole batch of {batch}"}
    meanings = [
        f"{kind}: a mask {sharing.get(rows_per_mask[kind], f'for {rows_per_mask[kind]} examples')}"
        for kind in groups
        if rows_per_mask[kind] is not None
    ]
    if any(len(rows) > 1 for rows in groups.values()):
        meanings.append("+-: the standard deviation over the seeds")
    lines = ["; ".join([*meanings, "gap: training accuracy minus test accuracy"]) + "."]
    seconds = "Seconds are those of training, on one thread"
    if {"no dropout", "batchwise"} <= groups.keys():
        share = _seconds(groups["batchwise"]) / _seconds(groups["no dropout"])
        why = (
            "units that a mask drops for the whole batch are not computed"
            if share < 1
            else "this network is too small to gain from leaving out units"
        )
        seconds += f": batchwise took {share:.2f} of the time without dropout, since {why}"
    return "\n".join([*lines, f"{seconds}."])


def _seconds(rows):
    return float(numpy.mean([run.seconds for run in rows]))


def conclusion(runs, training_examples, test_examples):
    """Two sentences that conclude from the table, over the seeds that have both rows.

    Dropout is that with a mask for each example.
    """
    plain = {run.seed: run for run in runs if run.kind == "no dropout"}
    dropped = {run.seed: run for run in runs if run.kind == "per-sample"}
    seeds = sorted(plain.keys() & dropped.keys())
    if not seeds:
        return "Nothing can be compared yet. Let at least one network of each kind finish."
    means = [
        100 * float(numpy.mean([getattr(group[seed], part) for seed in seeds]))
        for group in (plain, dropped)
        for part in ("training", "test")
    ]
    first = (
        f"Without dropout the network classifies {means[0]:.1f} % of its {training_examples} "
        f"training digits correctly, and {means[1]:.1f} % of the {test_examples} test digits; with "
        f"a mask for each example, {means[2]:.1f} % and {means[3]:.1f} %."
    )
    better = sum(dropped[seed].test > plain[seed].test for seed in seeds)
    where = f"it was better in {better} of {len(seeds)} runs"
    if len(seeds) == 1:
        where = "in one run: --seeds 5 shows how much runs differ"
    if means[3] > means[1]:
        fewer = 100 * (means[3] - means[1]) / (100 - means[1])
        second = (
            f"Dropout avoided {fewer:.0f} % of the errors on test digits ({where}): units that may "
            "be dropped cannot rely on each other."
        )
    else:
        second = (
            "Here dropout did not help on test digits: with these settings the network overfits "
            "too little, or trains too briefly; try more --hidden, more --epochs or a lower --rate."
        )
    return f"{first}\n{second}"
