"""Draw docs/guide/schedules.svg: the schedules of fastdrop.schedules over one training.

python tools/plot_schedules.py
"""

import pathlib

import matplotlib
import numpy

from fastdrop import schedules

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "fastdrop"

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "guide" / "schedules.svg"
STEPS = 1000
SHOWN = {
    "Linear(0, 0.5, 500)": schedules.Linear(0.0, 0.5, 500),
    "Cosine(0.5, 0.1, 1000)": schedules.Cosine(0.5, 0.1, STEPS),
    "Curriculum(0.5, 1000)": schedules.Curriculum(0.5, STEPS),
    "Early(0.5, 400)": schedules.Early(0.5, 400),
    "Late(0.5, 400)": schedules.Late(0.5, 400),
    "Warmup(200, 0.5)": schedules.Warmup(200, 0.5),
    "Exponential(0.5, 0.5, 500)": schedules.Exponential(0.5, 0.5, 500),
    "Piecewise([0.5, 0.3, 0.1], [300, 700])": schedules.Piecewise([0.5, 0.3, 0.1], [300, 700]),
}


def main():
    """Write the picture."""
    from matplotlib import pyplot

    steps = numpy.arange(STEPS)
    figure, panels = pyplot.subplots(2, 4, figsize=(10, 4), sharex=True, sharey=True)
    for panel, (name, schedule) in zip(panels.flat, SHOWN.items(), strict=True):
        panel.plot(steps, [schedule(int(step)) for step in steps], color="#1f6fb4")
        panel.set_title(name, fontsize=7)
        panel.set_ylim(-0.02, 0.56)
        panel.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("rate", fontsize=9)
    figure.tight_layout()
    figure.savefig(PAGE, metadata={"Date": None})


if __name__ == "__main__":
    main()
