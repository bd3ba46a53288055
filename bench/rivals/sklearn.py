"""scikit-learn's perceptron, which has no dropout: a fit, and a single training step."""

import numpy

from .. import verify
from ..cases import SEED, Contender, needs
from ..work import estimators
from ..work.step import LEARNING_RATE, MOMENTUM

__all__ = ["fit", "training_step"]


@needs("sklearn", "scikit-learn")
def fit(work, epochs):
    """A fit of some epochs."""
    from sklearn.neural_network import MLPClassifier

    calls = "sklearn.neural_network.MLPClassifier.fit"
    return estimators.fit(work, "scikit-learn", MLPClassifier, epochs, calls)


@needs("sklearn", "scikit-learn")
def training_step(work, optimiser):
    """A step on one batch: `partial_fit`, which checks its arguments as every call of it does."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        tuple(work.units[1:-1]),
        solver=optimiser.lower(),
        batch_size=work.batch,
        learning_rate_init=LEARNING_RATE,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        alpha=0.0,
        random_state=SEED,
    )
    classes = numpy.arange(work.units[-1])

    def run():
        model.partial_fit(work.x, work.labels, classes=classes)
        return model.loss_

    def check(value):
        work.check_value(value)
        before = [w.copy() for w in model.coefs_]
        run()
        moved = [not numpy.array_equal(a, b) for a, b in zip(before, model.coefs_, strict=True)]
        verify.require(all(moved), "a layer's weights did not move")

    calls = "sklearn.neural_network.MLPClassifier.partial_fit"
    return Contender("scikit-learn", run, check, calls, note="without dropout")
