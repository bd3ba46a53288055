"""Means and what they are uncertain by."""

import math

import numpy

__all__ = ["interval", "paired_ratio", "standard_error"]

CONFIDENCE = 0.95


def standard_error(values):
    """Return the standard error of the mean, NaN for a single value.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    float

    Examples
    --------
    >>> standard_error([1.0, 3.0])
    1.0
    """
    values = numpy.asarray(values, numpy.float64)
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def interval(values):
    """Return the mean and half of its 95 % confidence interval by Student's t.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    mean, half : float

    Examples
    --------
    >>> mean, half = interval([1.0, 3.0])
    >>> mean, round(half, 3)
    (2.0, 12.706)
    """
    return float(numpy.mean(values)), _quantile(len(values)) * standard_error(values)


def paired_ratio(values, baseline):
    """Return the ratio of two means of paired values, and half of its 95 % confidence interval.

    The linear approximation of the ratio (the delta method) with Student's t.

    Parameters
    ----------
    values, baseline : sequence of float
        The same seeds in the same order.

    Returns
    -------
    ratio, half : float

    Examples
    --------
    >>> paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    (0.5, 0.0)
    """
    values, baseline = (numpy.asarray(each, numpy.float64) for each in (values, baseline))
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values but {len(baseline)} of the baseline")
    ratio = float(values.mean() / baseline.mean())
    residuals = (values - ratio * baseline) / baseline.mean()
    return ratio, _quantile(len(values)) * standard_error(residuals)


def _quantile(count):
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)) if count > 1 else math.nan
