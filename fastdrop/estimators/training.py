"""The fit: epochs of steps, when to stop, which weights to keep."""

import warnings
from dataclasses import dataclass

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastdrop.estimators.objective import Objective
from fastdrop.estimators.progress import Progress
from fastdrop.estimators.rows import Rows, evaluate

__all__ = ["Examples", "train"]


@dataclass
class Examples:
    """What is learnt from.

    Attributes
    ----------
    rows : Rows
    target : numpy.ndarray, shape (n_samples,) of class numbers, or (n_samples, n_outputs)
    weights : numpy.ndarray or None, shape (n_samples,)
    """

    rows: Rows
    target: numpy.ndarray
    weights: numpy.ndarray | None

    def weights_of(self, chosen):
        """The weights of some of them; None if all weigh the same."""
        return None if self.weights is None else self.weights[chosen]


def train(model, examples, single):
    """Train a model's network, and set what its fit is to tell.

    Parameters
    ----------
    model : MultilayerPerceptron
        With `_network`, `_solver` and `_random_state`.
    examples : Examples
    single : bool
        One epoch, as `partial_fit` does.

    Raises
    ------
    ValueError
        If the loss overflows, or too little is left for validation.
    """
    training, held_out = _split(model, examples)
    batch = _batch_size(model.batch_size, len(training))
    kept = [p.value.copy() for p in model._network.parameters()] if model.early_stopping else None
    objective = Objective(model.out_activation_, model.n_outputs_)
    epochs = 1 if single else model.max_iter
    model.n_iter_ = 0
    progress = Progress(model.verbose, epochs)
    try:
        order = numpy.arange(len(training))
        for _ in range(epochs):
            if model.shuffle:
                # The numbers that scikit-learn takes from the random state, and its order.
                places = numpy.arange(len(training))
                model._random_state.shuffle(places)
                order = order[places]
            model.loss_ = _epoch(model, objective, examples, training[order], batch)
            model.n_iter_ += 1
            model.t_ += len(training)
            model.loss_curve_.append(model.loss_)
            score = None
            if model.early_stopping:
                score = _validate(model, examples, held_out, kept)
            else:
                _compare_loss(model)
            progress.epoch(model.n_iter_, model.loss_, score)
            model._solver.epoch_ends(model.t_)
            if model._no_improvement_count > model.n_iter_no_change and _stops(model, progress):
                break
            if not single and model.n_iter_ == epochs:
                warnings.warn(
                    f"max_iter={epochs} epochs are done and the training has not converged yet",
                    ConvergenceWarning,
                    stacklevel=4,
                )
    except KeyboardInterrupt:
        warnings.warn(
            "Training interrupted by user; the model keeps what it has learnt", stacklevel=4
        )
    except FloatingPointError as error:
        raise ValueError(
            "Solver produced non-finite parameter weights or losses: learning_rate_init may be too "
            f"large, or the data be in need of scaling ({error})"
        ) from None
    finally:
        progress.close()
    if kept is not None:
        for parameter, value in zip(model._network.parameters(), kept, strict=True):
            parameter.value[...] = value


def _split(model, examples):
    """Indices of the examples for training, and for validation."""
    everything = numpy.arange(len(examples.rows))
    if not model.early_stopping:
        return everything, everything[:0]
    # The numbers that scikit-learn's split takes from the random state, for the same parts.
    labels = examples.target if model._stratified() else None
    training, held_out = train_test_split(
        everything,
        random_state=model._random_state,
        test_size=model.validation_fraction,
        stratify=labels,
    )
    if len(held_out) < 2:
        raise ValueError(
            f"validation_fraction={model.validation_fraction} leaves {len(held_out)} of "
            f"{len(everything)} samples for validation, at least 2 are needed"
        )
    return training, held_out


def _batch_size(wanted, samples):
    if wanted == "auto":
        return min(200, samples)
    if wanted > samples:
        warnings.warn(
            f"batch_size={wanted} is larger than the sample size and clipped to {samples}",
            stacklevel=5,
        )
    return min(int(wanted), samples)


def _epoch(model, objective, examples, order, batch):
    """Pass over the examples in this order; return the mean loss of the batches."""
    network, solver, alpha = model._network, model._solver, model.alpha
    matrices = [p.value.reshape(-1) for p in network.parameters() if p.value.ndim == 2]
    take, target = examples.rows.take, examples.target
    accumulated = 0.0
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        weights = examples.weights_of(chosen)
        total = len(chosen) if weights is None else float(weights.sum())
        if not total:
            continue  # nothing to learn from these
        raw = network.forward(take(chosen), training=True)
        value, grad = objective(raw, target[chosen], weights)
        if alpha:
            squares = sum(float(numpy.dot(matrix, matrix)) for matrix in matrices)
            value += 0.5 * alpha * squares / total
        accumulated += value * len(chosen)
        network.backward(grad)
        solver.step(alpha / total)
    return accumulated / len(order)


def _validate(model, examples, held_out, kept):
    """Score what was held out, and keep the weights if they are the best so far."""
    raw = evaluate(model._network, examples.rows, held_out)
    score = model._validation_score(raw, examples.target[held_out], examples.weights_of(held_out))
    model.validation_scores_.append(score)
    if score < model.best_validation_score_ + model.tol:
        model._no_improvement_count += 1
    else:
        model._no_improvement_count = 0
    if score > model.best_validation_score_:
        model.best_validation_score_ = score
        for parameter, value in zip(model._network.parameters(), kept, strict=True):
            numpy.copyto(value, parameter.value)
    return score


def _compare_loss(model):
    """Count the epochs without a better loss.

    With dropout the loss of an epoch is that of its masks: one lucky epoch would be the best for
    long, and training end while the network still learns. So means are compared, over as many
    epochs as training may go on without improvement.
    """
    loss, best = model.loss_, model.best_loss_
    model.best_loss_ = min(loss, best)
    window = model.n_iter_no_change
    if any(model._architecture["rates"]) and window < numpy.inf:
        if len(model.loss_curve_) < window:
            return
        best = model._best_mean_loss
        loss = float(numpy.mean(model.loss_curve_[-window:]))
        model._best_mean_loss = min(loss, best)
    if loss > best - model.tol:
        model._no_improvement_count += 1
    else:
        model._no_improvement_count = 0


def _stops(model, progress):
    """Whether training ends here; otherwise the learning rate is smaller from now on."""
    what = "The validation score" if model.early_stopping else "The training loss"
    reason = f"{what} did not improve by tol={model.tol:g} in {model.n_iter_no_change} epochs"
    if model._solver.slow_down():
        progress.say(f"{reason}: learning rate {model._solver.learning_rate:g} from now on.")
        model._no_improvement_count = 0
        return False
    progress.say(f"{reason}: stopping.")
    return True
