"""The end of the demo: a scikit-learn estimator with dropout, and its least sure prediction.

Uncertainty is that of Monte Carlo dropout: Gal and Ghahramani, "Dropout as a Bayesian
approximation: representing model uncertainty in deep learning", ICML 2016, section 4.
"""

import importlib
import warnings

import numpy

from .report import wrapped

__all__ = ["fit", "report"]

SAMPLES = 100
# How dark a pixel is, from 0 to 1.
SHADES = " .:-=+*#%@"
CLASSES_SHOWN = 3


def fit(images, labels, **parameters):
    """Return a fitted `fastdrop.MLPClassifier`.

    Parameters
    ----------
    images : numpy.ndarray of float32, shape (examples, pixels)
    labels : numpy.ndarray of int, shape (examples,)
    **parameters
        Of the estimator; all of `max_iter` epochs are done.
    """
    estimators = importlib.import_module("fastdrop.estimators")
    exceptions = importlib.import_module("sklearn.exceptions")
    model = estimators.MLPClassifier(**parameters, n_iter_no_change=parameters["max_iter"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        return model.fit(images, labels)


def report(model, images, labels, random_state):
    """Report how well an estimator reads digits, and show its least sure prediction.

    Parameters
    ----------
    model : MLPClassifier
        Fitted, with dropout.
    images : numpy.ndarray of float32, shape (examples, pixels)
        Square, from 0 to 1, and not seen by the fit.
    labels : numpy.ndarray of int, shape (examples,)
    random_state : int
        Decides the masks.

    Returns
    -------
    str
    """
    samples = model.predict_samples(images, SAMPLES, random_state=random_state)
    mean, deviation = samples.mean(axis=0), samples.std(axis=0)
    entropy = -(mean * numpy.log(numpy.maximum(mean, 1e-30))).sum(axis=1)
    order = numpy.argsort(-entropy)
    wrong = model.classes_[mean.argmax(axis=1)] != labels
    unsure, sure = numpy.split(wrong[order], [-(-len(order) // 10)])
    worst = order[0]
    said = (
        f"MLPClassifier(dropout={model.dropout:g}), a scikit-learn estimator, predicted "
        f"{SAMPLES} times, with other units dropped each time.\n"
        f"Of the tenth of the digits with the least sure predictions {100 * unsure.mean():.0f} % "
        f"are wrong, of the others {100 * sure.mean():.0f} %. It is least sure of this "
        f"{labels[worst]} (probabilities with their standard deviation over the {SAMPLES} "
        f"predictions):"
    )
    lines = [
        *wrapped(said).splitlines(),
        "",
        *picture(images[worst]),
        "",
    ]
    for place in numpy.argsort(-mean[worst])[:CLASSES_SHOWN]:
        share, spread = mean[worst, place], deviation[worst, place]
        lines.append(f"    a {model.classes_[place]} with probability {share:.2f} +- {spread:.2f}")
    return "\n".join(lines)


def picture(image):
    """Lines of characters that look like a square image of values from 0 to 1."""
    side = round(len(image) ** 0.5)
    shades = numpy.rint(image.reshape(side, side) * (len(SHADES) - 1)).astype(int)
    return ["    " + "".join(2 * SHADES[shade] for shade in row) for row in shades]
