"""thinc: its dropout layer, and a training step; its kernels run on one thread."""

import numpy

from .. import verify
from ..cases import Contender, needs
from ..work.step import LEARNING_RATE

__all__ = ["dropout", "training_step"]


@needs("thinc", "thinc")
def dropout(x, rate):
    """thinc's layer, called as in training."""
    from thinc.api import Dropout

    layer = Dropout(rate)
    return Contender(
        "thinc",
        run=lambda: layer.begin_update(x),
        check=lambda result: verify.check_rival(result[0], x, 1 - rate),
        calls="thinc.model.Model.begin_update",
    )


@needs("thinc", "thinc")
def training_step(work, rate):
    """A step of Adam; thinc's SGD has no momentum."""
    from thinc.api import Adam, CategoricalCrossentropy, Relu, Softmax, chain

    hidden = [Relu(units, dropout=rate) for units in work.units[1:-1]]
    one_hot = numpy.eye(work.units[-1], dtype=numpy.float32)[work.labels]
    model = chain(*hidden, Softmax(work.units[-1]))
    model.initialize(X=work.x, Y=one_hot)
    optimiser = Adam(LEARNING_RATE, L2=0.0, grad_clip=0.0)
    loss = CategoricalCrossentropy(normalize=True)
    examples = numpy.arange(work.batch)

    def run():
        y, backward = model.begin_update(work.x)
        backward(loss.get_grad(y, one_hot))
        model.finish_update(optimiser)
        return float(-numpy.log(y[examples, work.labels]).mean())

    return Contender("thinc", run, work.check_value, "thinc.model.Model.begin_update")
