"""Pictures of what was measured, as SVG that carry a digest of the numbers they were drawn from."""

import hashlib
import json
import pathlib
import re

__all__ = ["draw", "numbers", "stale"]

RATES = re.compile(r"^(fastdrop|torch), rate ([\d.]+)$")
KINDS = {
    "batchwise": "one mask a batch",
    "groups-of-32": "a mask for 32 rows",
    "per-sample": "a mask for each example",
}
LARGE = "128x784x1024x1024x10"


# --- The numbers -------------------------------------------------------------------------------


def _step(machine):
    """Return lines of (rate, milliseconds): fastdrop's kinds of mask, torch, scikit-learn."""
    lines = {}
    for kind, label in KINDS.items():
        result = machine.result(f"step/rates/{kind}/{LARGE}", 2)
        for one in result["contenders"] if result else []:
            match = RATES.match(one["name"])
            if match is None:
                lines.setdefault("scikit-learn, no dropout", []).append([None, one["median"]])
            else:
                who = f"fastdrop, {label}" if match[1] == "fastdrop" else "torch"
                lines.setdefault(who, []).append([float(match[2]), one["median"]])
    return lines


def _sweep(work, axis):
    """Return a function of a machine that returns lines of (place, value) of a sweep.

    The sweep is that of ``bench_scaling``: cases ``scaling/WORK/...``, one for each place.
    """

    def found(machine):
        lines = {}
        for result in machine.document["results"]:
            if result["family"] != "scaling" or result["work"].split("/")[0] != work:
                continue
            place = axis(result)
            for one in result["contenders"]:
                name = one["name"]
                if result["threads"] > 1:
                    name += f", {result['threads']} threads"
                lines.setdefault(name, []).append([place, one["median"]])
        return {name: sorted(points) for name, points in lines.items()}

    return found


def _roofline(machine):
    """Return the kernels and how much of the machine's limit each attains, by threads."""
    return {
        f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}": [
            [row["kernel"], row["attained"]] for row in found["rows"]
        ]
        for found in machine.document.get("roofline", [])
    }


# --- Drawing -----------------------------------------------------------------------------------


def _line(axes, points, name, **look):
    axes.plot(*zip(*points, strict=True), label=name, marker="o", markersize=3, **look)


def _draw_step(axes, lines):
    for number, (name, points) in enumerate(lines.items()):
        points = [[rate, 1e3 * seconds] for rate, seconds in points]
        if points[0][0] is None:
            axes.axhline(points[0][1], label=name, linestyle=":", color="0.3")
        else:
            style = "-" if name.startswith("fastdrop") else "--"
            _line(axes, points, name, linestyle=style, color=f"C{number}")
    axes.set(xlabel="rate of the hidden layers", ylabel="milliseconds a step")
    axes.set_ylim(bottom=0)


def _draw_per(unit, per, xlabel, ylabel, logarithmic=True):
    def drawn(axes, lines):
        for name, points in lines.items():
            style = "-" if name.startswith("fastdrop") else "--"
            values = [[place, unit * seconds / per(place)] for place, seconds in points]
            _line(axes, values, name, linestyle=style)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)

    return drawn


def _draw_roofline(axes, groups):
    names = [name for name, _ in next(iter(groups.values()))][::-1]
    height = 0.8 / len(groups)
    for number, (threads, rows) in enumerate(groups.items()):
        attained = dict(rows)
        places = [place - height * number for place in range(len(names))]
        axes.barh(places, [attained.get(name, 0) for name in names], height, label=threads)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.set(xlabel="of what memory and multipliers allow")


def _elements(result):
    return result["size"]


def _nth(position):
    return lambda result: result["size"][position]


def _rate(result):
    return float(result["work"].split("/")[1])


def _one(place):
    return 1


# Name: the numbers of a machine; how they are drawn; width and height.
PICTURES = {
    "step": (_step, _draw_step, (6.4, 3.6)),
    "roofline": (_roofline, _draw_roofline, (7, 5.2)),
    "size": (
        _sweep("size", _elements),
        _draw_per(1e9, lambda n: n, "elements", "nanoseconds an element"),
        (7, 4.2),
    ),
    "isa": (
        _sweep("isa", _elements),
        _draw_per(1e9, lambda n: n, "elements", "nanoseconds an element"),
        (7, 4.2),
    ),
    "units": (
        _sweep("units", _nth(1)),
        _draw_per(1e9, lambda n: n * n, "units in and out", "nanoseconds a weight"),
        (7, 4.2),
    ),
    "batch": (
        _sweep("batch", _nth(0)),
        _draw_per(1e6, lambda n: n, "rows of the batch", "microseconds a row"),
        (7, 4.2),
    ),
    "rate": (
        _sweep("rate", _rate),
        _draw_per(1e3, _one, "rate", "milliseconds", logarithmic=False),
        (7, 4.2),
    ),
}  # fmt: skip


def numbers(name, machines):
    """Return what a picture shows: lines by machine; machines that have none are left out."""
    found = {machine.label: PICTURES[name][0](machine) for machine in machines}
    return {label: lines for label, lines in found.items() if lines}


def _digest(shown):
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def stale(folder, machines):
    """Return the files of pictures that do not show the machines' numbers."""
    found = []
    for name in PICTURES:
        shown, path = numbers(name, machines), pathlib.Path(folder, f"{name}.svg")
        if shown and (not path.exists() or _digest(shown) not in path.read_text()):
            found.append(path)
    return found


def draw(path, machines):
    """Draw the picture that a file is named after, a panel for each machine."""
    import matplotlib
    from matplotlib.figure import Figure

    path = pathlib.Path(path)
    shown = numbers(path.stem, machines)
    _, drawn, (width, height) = PICTURES[path.stem]
    settings = {"svg.hashsalt": "fastdrop", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), squeeze=False)[:, 0]
        for axes, (label, lines) in zip(panels, shown.items(), strict=True):
            drawn(axes, lines)
            axes.set_title(label, fontsize=9)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Description": f"data {_digest(shown)}"})
