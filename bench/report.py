"""The results as a table on the terminal."""

__all__ = ["amount", "bar_text", "list_cases", "losses", "summary", "table"]

HEADINGS = ("contender", "median", "quartiles", "time ratio", "95 % interval", "bar")


def table(result) -> str:
    """Return one case's results: a heading, a line per contender, and lines on what is missing.

    The ratio on a contender's line is the first contender's time divided by its own, so that
    0.5 reads: fastdrop takes half of its time.
    """
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    stopped = ", interrupted" if result.interrupted else ""
    rounds = f"{result.rounds} round{'s' if result.rounds != 1 else ''}"
    lines = [f"{result.case.name}  ({threads}, {rounds}{stopped})"]
    judged = result.judged()
    rows = [HEADINGS]
    for name in result.samples:
        spread = result.spread(name)
        unit = result.case.unit
        row = [
            name,
            amount(spread.median, unit),
            f"{amount(spread.lower, unit)} .. {amount(spread.upper, unit)}",
        ]
        if name == result.own or unit == "bytes":
            row += ["", ""]
        else:
            ratio = result.interval(result.own, name)
            level = "" if ratio.level >= 0.95 else f" ({100 * ratio.level:.0f} %)"
            row += [f"{ratio.median:.3g}", f"{ratio.lower:.3g} .. {ratio.upper:.3g}{level}"]
        bars = [_verdict(one, result) for one in judged if not one.reason and _line(one) == name]
        rows.append((*row, "; ".join(bars)))
    lines += [f"  {line}" for line in _aligned(rows)]
    lines += [
        f"  not judged: {one.bar.contender} {bar_text(one.bar, result.case.unit)}: {one.reason}"
        for one in judged
        if one.reason
    ]
    lines += [
        f"  {name}: {contender.note}"
        for name, contender in result.contenders.items()
        if contender.note
    ]
    if result.disturbed:
        lines.append(f"  disturbed: others took a processor away {result.preempted} times")
    lines += [f"  skipped: {one.name}: {one.reason}" for one in result.skipped]
    return "\n".join(lines)


def summary(results, failures) -> str:
    """Return the losses, the bars missed, the cases that failed, and how many bars were met."""
    judged = [(result, one) for result in results for one in result.judged() if not one.reason]
    missed = [(result, one) for result, one in judged if not one.met]
    lines = [
        f"slower: {result.case.name}, {result.threads} thread{'s' if result.threads > 1 else ''}: "
        f"{ratio.median:.3g} times as long as {name} ({ratio.lower:.3g} .. {ratio.upper:.3g})"
        for result, name, ratio in losses(results)
    ]
    lines += [
        f"missed: {result.case.name}, {result.threads} thread"
        f"{'s' if result.threads > 1 else ''}: {_verdict(one, result)}"
        for result, one in missed
    ]
    lines += [f"FAILED: {failure}" for failure in failures]
    lines.append(f"{len(judged) - len(missed)} of {len(judged)} bars met")
    return "\n".join(lines)


def losses(results):
    """Return (result, rival, ratio) wherever fastdrop surely takes longer than another's work."""
    found = []
    for result in results:
        for name in result.samples:
            if result.case.unit == "bytes" or name.startswith("fastdrop"):
                continue
            ratio = result.interval(result.own, name)
            if ratio.lower > 1:
                found.append((result, name, ratio))
    return found


def list_cases(cases) -> str:
    """Return the names of the cases, each with its bars."""
    lines = []
    for case in cases:
        lines.append(case.name)
        lines += [f"    {bar.contender} {bar_text(bar, case.unit)}" for bar in case.bars]
    return "\n".join(lines)


def bar_text(bar, unit) -> str:
    """Return a bar in words: ``<= 0.75 x copyto, at 1 thread``."""
    rival = " or ".join(bar.rivals)
    if bar.times_faster is not None:
        text = f">= {bar.times_faster:g} times faster than {rival}"
    elif bar.difference_at_most is not None:
        text = f"<= {rival} + {amount(bar.difference_at_most, unit)}"
    elif bar.rival is None:
        text = f"<= {amount(bar.at_most, unit)}"
    else:
        text = f"<= {bar.at_most:g} x {rival}"
    if bar.threads is not None:
        text += f", at {bar.threads} thread{'s' if bar.threads > 1 else ''}"
    return text


def _line(judged):
    """Return the contender on whose line a bar stands: the rival's, or its own without one."""
    return judged.rival or judged.bar.contender


def _verdict(judged, result):
    bar, unit = judged.bar, result.case.unit
    whose = "" if bar.contender in (result.own, _line(judged)) else f"{bar.contender} "
    value = judged.bar.rival is None or bar.difference_at_most is not None
    measured = amount(judged.measured, unit) if value else f"{judged.measured:.3g}"
    return f"{whose}{bar_text(bar, unit)}: {measured}, {'met' if judged.met else 'MISSED'}"


def amount(value, unit):
    """Return seconds or bytes with a fitting prefix and three significant digits."""
    if unit == "bytes":
        for factor, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}"
        return f"{value:.0f} B"
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value * 1e9:.3g} ns"


def _aligned(rows):
    """Return the rows as lines with aligned columns: the first and the last to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        middle = (f"{cell:>{width}}" for cell, width in zip(row[1:-1], widths[1:-1], strict=True))
        yield "  ".join((f"{row[0]:<{widths[0]}}", *middle, row[-1])).rstrip()
