"""DropConnect: masks of weights, for the batch and for rows; gradients, moments, prediction."""

import subprocess
import sys

import numpy
import pytest
from conftest import assert_identical, values
from nn_cases import STEP
from rounding import assert_close, sum_error

import fastdrop
from fastdrop import Mask, MaskStream, masked_matmul, masked_matmul_backward, reference

DTYPES = (numpy.float32, numpy.float64)


def operands(rows, units_in, units_out, dtype=numpy.float64):
    shapes = (rows, units_in), (units_in, units_out), (units_out,), (rows, units_out)
    return [values(shape, dtype, seed) for seed, shape in enumerate(shapes)]


def written_out(w, mask, rows):
    """The weights of every row, (rows, units_in, units_out), by the mask's definition."""
    kept, every = mask.to_array(), mask.rows_per_mask
    if mask.ndim == 2:
        kept, every = kept[numpy.newaxis], "batch"
    of_row = numpy.zeros(rows, int) if every == "batch" else numpy.arange(rows) // every
    return numpy.where(kept[of_row], w * w.dtype.type(mask.scale), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["auto", "dense"])
@pytest.mark.parametrize("shape", [(13, 33, 50), (1, 7, 9), (40, 161, 3)])
def test_masked_matmul_with_masked_weights(each_backend, dtype, method, shape):
    """With masks of units beside it; product and gradients, as the reference says."""
    rows, units_in, units_out = shape
    x, w, bias, grad = operands(*shape, dtype)
    stream = MaskStream(3)
    masks = {
        "mask_in": stream.draw((rows, units_in), rate=0.3),
        "mask_out": stream.draw((rows, units_out), rate=0.5, rows_per_mask="batch"),
        "mask_weight": stream.draw(w.shape, rate=0.4),
    }
    for given in (masks, {"mask_weight": masks["mask_weight"]}):
        wide = [array.astype(float) for array in (x, w, bias, grad)]
        for order in "CF":
            laid = numpy.asarray(w, order=order)
            y = masked_matmul(x, laid, bias=bias, method=method, **given)
            expected = reference.masked_matmul(*wide[:2], bias=wide[2], **given)
            magnitude = reference.masked_matmul(*map(abs, wide[:2]), bias=abs(wide[2]), **given)
            assert_close(y, expected, sum_error(magnitude, units_in + 6, dtype))
            found = masked_matmul_backward(grad, x, laid, method=method, **given)
            expected = reference.masked_matmul_backward(wide[3], *wide[:2], **given)
            bounds = reference.masked_matmul_backward(*map(abs, (wide[3], *wide[:2])), **given)
            for one, right, bound in zip(found, expected, bounds, strict=True):
                assert_close(one, right, sum_error(bound, max(shape) + 6, dtype))
            assert not found[1][~masks["mask_weight"].to_array()].any()


@pytest.mark.parametrize("every", ["batch", 1, 3, 100])
@pytest.mark.parametrize("units", [(5, 8), (7, 9), (33, 3)])
def test_rows_have_their_masks(each_backend, every, units):
    x, w, bias, grad = operands(8, *units)
    y, mask = fastdrop.dropconnect(x, w, rate=0.4, bias=bias, rng=1, rows_per_mask=every)
    groups = {"batch": (), 1: (8,), 3: (3,), 100: (1,)}[every]
    assert mask.shape == (*groups, *units)
    assert mask == MaskStream(1).draw(
        (8, *units) if groups else units, rate=0.4, rows_per_mask=every if groups else 1
    )
    own = written_out(w, mask, 8)
    numpy.testing.assert_allclose(y, numpy.einsum("ri,rio->ro", x, own) + bias, rtol=1e-12)
    grad_x, grad_w, grad_bias = fastdrop.dropconnect_backward(grad, x, w, mask)
    numpy.testing.assert_allclose(grad_x, numpy.einsum("ro,rio->ri", grad, own), rtol=1e-11)
    factor = written_out(numpy.ones_like(w), mask, 8)
    expected = numpy.einsum("ri,ro,rio->io", x, grad, factor)
    numpy.testing.assert_allclose(grad_w, expected, rtol=1e-10, atol=1e-12)
    numpy.testing.assert_allclose(grad_bias, grad.sum(axis=0), rtol=1e-12)
    again, given = fastdrop.dropconnect(x, w, bias=bias, mask=mask)
    assert_identical(again, y)
    assert given is mask


@pytest.mark.parametrize("every", ["batch", 1, 2])
def test_the_gradients_equal_finite_differences(every):
    x, w, bias, grad = operands(4, 3, 5)
    mask = fastdrop.dropconnect(x, w, rate=0.3, rng=2, rows_per_mask=every)[1]
    found = fastdrop.dropconnect_backward(grad, x, w, mask)
    for number, array in enumerate((x, w, bias)):
        for index in numpy.ndindex(array.shape):
            moved = []
            for step in (STEP, -STEP):
                arrays = [one.copy() for one in (x, w, bias)]
                arrays[number][index] += step
                y = fastdrop.dropconnect(arrays[0], arrays[1], bias=arrays[2], mask=mask)[0]
                moved.append((y * grad).sum())
            slope = (moved[0] - moved[1]) / (2 * STEP)
            numpy.testing.assert_allclose(found[number][index], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("every", ["batch", 1])
def test_sequences_share_the_mask_of_their_row(every):
    """Rows are those of axis 0, whatever stands behind it."""
    x, w = values((3, 4, 5), numpy.float64), values((5, 6), numpy.float64, 1)
    y, mask = fastdrop.dropconnect(x, w, rate=0.5, rng=0, rows_per_mask=every)
    own = written_out(w, mask, 3)
    numpy.testing.assert_allclose(y, numpy.einsum("rti,rio->rto", x, own), rtol=1e-12)
    grads = fastdrop.dropconnect_backward(y, x, w, mask)
    numpy.testing.assert_allclose(grads[0], numpy.einsum("rto,rio->rti", y, own), rtol=1e-11)
    numpy.testing.assert_allclose(grads[2], y.sum(axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("every", ["batch", 1])
def test_evaluation_and_moments_are_those_of_the_masks(scale_at, every):
    """Mean and variance over 4000 masks, within 6 of their standard errors."""
    x, w, bias, _ = operands(2, 6, 4)
    stream, options = MaskStream(5), {"bias": bias, "scale_at": scale_at}
    drawn = numpy.array(
        [
            fastdrop.dropconnect(x, w, 0.3, rng=stream, rows_per_mask=every, **options)[0]
            for _ in range(4000)
        ]
    )
    mean, variance = fastdrop.dropconnect_moments(x, w, 0.3, **options)
    evaluated, none = fastdrop.dropconnect(x, w, 0.3, training=False, **options)
    assert none is None
    numpy.testing.assert_allclose(evaluated, mean, rtol=1e-12)
    error = drawn.std(axis=0) / 4000**0.5
    assert (abs(drawn.mean(axis=0) - mean) <= 6 * error).all()
    squares = (drawn - mean) ** 2
    assert (abs(squares.mean(axis=0) - variance) <= 6 * squares.std(axis=0) / 4000**0.5).all()
    factor = 0.7 if scale_at == "test" else 1.0
    numpy.testing.assert_allclose(mean, factor * (x @ w) + bias, rtol=1e-12)


def test_inference_is_the_mean_over_masks():
    """Of 400 inputs a unit's sum is normal, nearly: the paper's approximation holds."""
    x, w, bias, _ = operands(3, 400, 5)
    w, stream = w / 20, MaskStream(6)
    y = fastdrop.dropconnect_inference(
        x, w, 0.5, bias=bias, activation=numpy.tanh, samples=4000, rng=0
    )
    drawn = numpy.tanh(
        [fastdrop.dropconnect(x, w, 0.5, bias=bias, rng=stream)[0] for _ in range(4000)]
    )
    error = drawn.std(axis=0) * (2 / 4000) ** 0.5
    assert (abs(drawn.mean(axis=0) - y) <= 6 * error + 0.01).all()
    assert (abs(numpy.tanh(x @ w + bias) - y) > 0.02).any()  # the mean alone is another thing
    same = fastdrop.dropconnect_inference(x, w, 0.5, bias=bias, rng=stream)
    assert stream.position == 4000  # the identity draws nothing
    numpy.testing.assert_allclose(same, x @ w + bias, rtol=1e-12)
    fastdrop.dropconnect_inference(x, w, 0.5, activation=numpy.tanh, samples=3, rng=stream)
    assert stream.position == 4003


@pytest.mark.parametrize("every", ["batch", 1])
def test_nothing_dropped_is_read_and_what_is_kept_counts(each_backend, every):
    x, w, bias, grad = operands(6, 11, 10)
    mask = fastdrop.dropconnect(x, w, rate=0.5, rng=3, rows_per_mask=every)[1]
    expected = fastdrop.dropconnect(x, w, bias=bias, mask=mask)[0]
    gradients = fastdrop.dropconnect_backward(grad, x, w, mask)
    kept = mask.to_array() if every == "batch" else mask.to_array().any(axis=0)
    bad = w.copy()
    bad[~kept] = numpy.nan
    assert_identical(fastdrop.dropconnect(x, bad, bias=bias, mask=mask)[0], expected)
    for found, right in zip(
        fastdrop.dropconnect_backward(grad, x, bad, mask), gradients, strict=True
    ):
        assert_identical(found, right)
    x[2, 4] = numpy.inf
    y = fastdrop.dropconnect(x, w, bias=bias, mask=mask)[0]
    reached = mask.to_array()[4] if every == "batch" else mask.to_array()[2, 4]
    assert (numpy.isinf(y[2]) == reached).all()
    assert numpy.isfinite(y[[0, 1, 3, 4, 5]]).all()


PEAK = """
import numpy, resource
from fastdrop import MaskStream, masked_matmul, masked_matmul_backward
x, w = numpy.ones((16, 4096), numpy.float32), numpy.ones((4096, 4096), numpy.float32)
grad, out = numpy.ones_like(x), numpy.ones_like(x)
into = numpy.ones_like(x), numpy.ones_like(w), numpy.ones(4096, numpy.float32)
mask = MaskStream(0).draw(w.shape, rate=0.5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
masked_matmul(x, w, mask_weight=mask, out=out)
masked_matmul_backward(grad, x, w, mask_weight=mask, out=into)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / w.nbytes)
"""


def test_a_product_of_masked_weights_needs_no_copy_of_them():
    """Of a process' largest size, all memory is part, that of the kernels too."""
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 0.25


def test_out_and_dtypes():
    x, w, bias, grad = operands(4, 6, 5, numpy.float32)
    expected, mask = fastdrop.dropconnect(x, w, 0.5, bias=bias, rng=1)
    out = numpy.empty((4, 5), numpy.float32)
    y, _ = fastdrop.dropconnect(x, w, bias=bias, mask=mask, out=out)
    assert y is out
    assert_identical(out, expected)
    for every in ("batch", 1):
        half = [array.astype(numpy.float16) for array in (x, w, bias, grad)]
        y, mask = fastdrop.dropconnect(
            half[0], half[1], 0.5, bias=half[2], rng=1, rows_per_mask=every
        )
        wide = [array.astype(numpy.float32) for array in half]
        right = fastdrop.dropconnect(*wide[:2], bias=wide[2], mask=mask)[0]
        assert_identical(y, right.astype(numpy.float16))
        for gradient in fastdrop.dropconnect_backward(half[3], *half[:2], mask):
            assert gradient.dtype == numpy.float16
    for every in ("batch", 1):  # numbers of the other byte order
        y, mask = fastdrop.dropconnect(x, w, 0.5, bias=bias, rng=1, rows_per_mask=every)
        swapped = [array.astype(">f4") for array in (x, w, bias, grad)]
        options = {"bias": swapped[2], "mask": mask}
        assert_identical(fastdrop.dropconnect(*swapped[:2], **options)[0], y)
        expected = fastdrop.dropconnect_backward(grad, x, w, mask)
        found = fastdrop.dropconnect_backward(swapped[3], *swapped[:2], mask)
        for one, right in zip(found, expected, strict=True):
            assert_identical(one, right)
    moments = fastdrop.dropconnect_moments(*half[:2], 0.5)
    assert [moment.dtype for moment in moments] == [numpy.float16] * 2


def test_rows_that_are_not_there():
    x, w = numpy.ones((0, 3)), numpy.ones((3, 4))
    for every in ("batch", 1):
        y, mask = fastdrop.dropconnect(x, w, 0.5, rng=0, rows_per_mask=every)
        assert y.shape == (0, 4)
        grads = fastdrop.dropconnect_backward(y, x, w, mask)
        assert not grads[1].any()
    for every in ("batch", 1):
        none, mask = fastdrop.dropconnect(
            numpy.ones((2, 3)), numpy.ones((3, 0)), 0.5, rng=0, rows_per_mask=every
        )
        assert none.shape == (2, 0)
        grads = fastdrop.dropconnect_backward(none, numpy.ones((2, 3)), numpy.ones((3, 0)), mask)
        assert_identical(grads[0], numpy.zeros((2, 3)))
    y, mask = fastdrop.dropconnect(numpy.ones(3), w, 0.5, rng=0)
    assert y.shape == (4,)
    assert fastdrop.dropconnect_backward(y, numpy.ones(3), w, mask)[0].shape == (3,)


def test_what_cannot_be_is_named():
    x, w, bias, grad = operands(4, 3, 5)
    stream = MaskStream(0)
    mask = stream.draw(w.shape, rate=0.5)
    cases = [
        (TypeError, "exactly one", {}),
        (ValueError, "rate must be in", {"rate": 2.0}),
        (ValueError, "rows_per_mask must be at least 1", {"rate": 0.5, "rows_per_mask": 0}),
        (ValueError, "rows_per_mask must be an int", {"rate": 0.5, "rows_per_mask": "row"}),
        (ValueError, "scale_at must be", {"rate": 0.5, "scale_at": "never"}),
        (ValueError, r"bias must have shape \(5,\)", {"rate": 0.5, "bias": bias[:2]}),
        (TypeError, "bias must have dtype", {"rate": 0.5, "bias": bias.astype("f4")}),
        (TypeError, "give a mask or rate", {"rate": 0.5, "mask": mask}),
        (TypeError, "mask must be None with training=False", {"mask": mask, "training": False}),
        (ValueError, "does not fit", {"mask": Mask.from_array(numpy.ones((3, 4)))}),
        (ValueError, "does not fit", {"mask": stream.draw((5, 3, 5), rate=0.5)}),
        (ValueError, "out must have shape", {"rate": 0.5, "out": numpy.empty((4, 4))}),
    ]
    position = stream.position
    for kind, message, options in cases:
        if "mask" not in options:
            options["rng"] = stream
        with pytest.raises(kind, match=message):
            fastdrop.dropconnect(x, w, **options)
    assert stream.position == position
    with pytest.raises(ValueError, match=r"w must have shape \(3, units_out\)"):
        fastdrop.dropconnect(x, w.T, 0.5)
    with pytest.raises(ValueError, match="x must have rows where rows_per_mask is 1"):
        fastdrop.dropconnect(x[0], w, 0.5, rows_per_mask=1)
    with pytest.raises(ValueError, match="grad_y must have shape"):
        fastdrop.dropconnect_backward(grad[:2], x, w, mask)
    with pytest.raises(TypeError, match=r"mask must be a fastdrop\.Mask or None, got ndarray"):
        fastdrop.dropconnect_backward(grad, x, w, mask.to_array())
    with pytest.raises(ValueError, match="method must be auto or dense with mask_weight"):
        masked_matmul(x, w, mask_weight=mask, method="skip")
    with pytest.raises(TypeError, match=r"mask_weight must be a fastdrop\.Mask"):
        masked_matmul(x, w, mask_weight=mask.to_array())
    with pytest.raises(ValueError, match="mask_weight"):
        masked_matmul(x, w, mask_weight=stream.draw((2, 5), rate=0.5))
    with pytest.raises(ValueError, match="rate must be less than 1"):
        fastdrop.dropconnect_moments(x, w, 1.0)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        fastdrop.dropconnect_inference(x, w, 0.5, samples=0)
    with pytest.raises(TypeError, match="activation must be callable or None, got str"):
        fastdrop.dropconnect_inference(x, w, 0.5, activation="tanh")
    with pytest.raises(ValueError, match=r"activation must return real numbers of shape \(4, 5\)"):
        fastdrop.dropconnect_inference(x, w, 0.5, activation=lambda u: u[0])
