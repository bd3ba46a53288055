"""What scikit-learn calls by different names in its versions from 1.4 on."""

from sklearn.utils import validation

__all__ = ["check_weights", "validate_data"]

if hasattr(validation, "validate_data"):  # 1.6 and later
    validate_data = validation.validate_data
else:

    def validate_data(estimator, *args, **kwargs):
        """Check and convert data, and remember or compare features and their names."""
        return estimator._validate_data(*args, **kwargs)


def check_weights(sample_weight, x, name="sample_weight"):
    """Return sample weights as an array of the dtype of x, one for each row.

    Parameters
    ----------
    sample_weight : array_like, float or None
        None: 1 for each.
    x : array or sparse matrix, shape (n_samples, n_features)
    name : str, optional
        The argument's, for messages.

    Returns
    -------
    numpy.ndarray, shape (n_samples,)

    Raises
    ------
    ValueError
        Where there is not one for every row, one is negative or not finite, or all are 0.
    """
    weights = validation._check_sample_weight(sample_weight, x, dtype=x.dtype)
    if (weights < 0).any():
        raise ValueError(
            f"Negative values in data passed to `{name}`, the least is {weights.min()}"
        )
    if not weights.any():
        raise ValueError(f"{name} must not be 0 for every sample")
    return weights
