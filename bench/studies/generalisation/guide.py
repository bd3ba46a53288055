"""Tables of the guide `docs/guide/choosing.md`, from the study's summary."""

import numpy

from ...marks import markdown

__all__ = ["guide_tables"]

# What the guide calls the arms, and how many masks a batch of 128 rows has then.
MASKS = {
    "none": ("no dropout", ""),
    "per-sample": ("1, each row", 128),
    "32 rows": ("32", 4),
    "batchwise": ('`"batch"`', 1),
}


def guide_tables(summary):
    """Return the tables of the guide, by name.

    Parameters
    ----------
    summary : dict
        What the parts returned, by the part's name; the parts "comparison", "shorter" and "timing".

    Returns
    -------
    dict of str
    """
    seconds = summary["timing"]["epoch_seconds"]
    short, long = summary["shorter"]["arms"], summary["comparison"]["arms"]
    masks, rates = [], []
    for arm, (name, number) in MASKS.items():
        errors = [f"{numpy.mean(arms[arm]['error']):.2f} %" for arms in (short, long)]
        masks.append([name, number, f"{seconds[arm] / seconds['none']:.2f}", *errors])
        rates.append([name, short[arm]["learning_rate"], long[arm]["learning_rate"]])
    lengths = [f"{arms['none']['epochs']} epochs" for arms in (short, long)]
    time = "time of an epoch, none = 1"
    header = ["`rows_per_mask`", "masks in a batch of 128", time, *lengths]
    header[3] = f"test error, {header[3]}"
    return {
        "masks": markdown(header, masks),
        "learning-rates": markdown(["`rows_per_mask`", *lengths], rates),
    }
