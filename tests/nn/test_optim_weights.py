"""Updates of weights that have a mask of their own: the dropped ones do not move."""

import numpy
import pytest
from conftest import assert_identical, values
from rounding import assert_same_bits

from fastdrop import Mask, MaskStream, _kernels, nn, optim, reference
from fastdrop.parameters import Parameter

OPTIMISERS = {
    "SGD": lambda params: optim.SGD(params, 0.1, weight_decay=0.1),
    "momentum": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda params: optim.SGD(params, 0.1, momentum=0.9, nesterov=True),
    "dampening": lambda params: optim.SGD(
        params, 0.1, momentum=0.9, dampening=0.5, weight_decay=0.1
    ),
    "Adam": lambda params: optim.Adam(params, 0.1, weight_decay=0.1),
    "amsgrad": lambda params: optim.Adam(params, 0.1, amsgrad=True),
    "AdamW": lambda params: optim.AdamW(params, 0.1),
    "RMSprop": lambda params: optim.RMSprop(params, 0.1, momentum=0.9, weight_decay=0.1),
}
SHAPES = [(5, 7), (1, 1), (33, 64), (3, 200), (40, 17)]


def masked(shape, seed, dtype=numpy.float64):
    weight = Parameter("weight", values(shape, dtype, seed))
    weight.grad = values(shape, dtype, seed + 1)
    weight.mask = MaskStream(seed).draw(shape, rate=0.5)
    return weight


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_dropped_moves(name, shape, each_backend):
    """And what is kept by every mask moves as without masks, Adam's bias correction aside."""
    weight = masked(shape, 2)
    opt = OPTIMISERS[name]([weight])
    for step in range(3):
        weight.mask = MaskStream(step).draw(shape, rate=0.5)
        weight.grad = values(shape, numpy.float64, step + 5)
        weight.grad[~weight.mask.to_array()] = numpy.nan  # is not read
        before = weight.value.copy()
        memory = {key: x for key, x in opt.state_dict().items() if numpy.shape(x) == shape}
        opt.step()
        kept = weight.mask.to_array()
        assert_identical(weight.value[~kept], before[~kept])
        assert (weight.value[kept] != before[kept]).all()
        for key, old in memory.items():
            assert_identical(opt.state_dict()[key][~kept], old[~kept])
    assert numpy.isfinite(weight.value).all()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_mask_that_keeps_everything_changes_nothing(name):
    plain, weight = masked((6, 9), 1), masked((6, 9), 1)
    plain.mask, weight.mask = None, Mask.from_array(numpy.ones((6, 9)))
    for one in (plain, weight):
        opt = OPTIMISERS[name]([one])
        for _ in range(3):
            opt.step()
    numpy.testing.assert_allclose(weight.value, plain.value, rtol=1e-14)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("max_norm", [numpy.inf, 1.5])
@pytest.mark.parametrize("adam", [False, True])
def test_kernels_equal_the_reference(each_isa, each_thread_count, dtype, max_norm, adam):
    """Bit for bit, rows with units of their own among them."""
    table = reference.correction_table(0.9, 0.99, 50)
    for number, shape in enumerate([*SHAPES, (300, 500)]):
        results = []
        for module in (_kernels, reference):
            arrays = [values(shape, dtype, number + each) for each in range(4)]
            value, gradient, first, second = arrays
            second **= 2
            kept = MaskStream(number).draw(shape, rate=0.4).bits
            rows = (numpy.packbits(numpy.arange(shape[0]) % 3 != 1, bitorder="little"), 0)
            options = {"rows": rows if number % 2 else None, "kept": kept, "max_norm": max_norm}
            counts = [numpy.arange(n) % 20 for n in shape]
            if adam:
                options |= {
                    "second": second, "row_counts": counts[0], "column_counts": counts[1],
                    "steps": 20, "table": table, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8,
                }  # fmt: skip
            else:
                options |= {"momentum": 0.9, "weight_decay": 0.1}
            module.update(module.Update(value, gradient, learning_rate=0.1, first=first, **options))
            results.append((value, first, second, *counts))
        for mine, expected in zip(*results, strict=True):
            assert_same_bits(mine, expected, f"{shape}")


def test_adam_takes_the_share_of_updates():
    """A weight that was kept in every update but is in a mask of one half: k is half the steps."""
    weight = masked((1, 2), 0)
    opt = optim.Adam([weight], 0.1, epsilon=1e-12)
    weight.mask, weight.grad = Mask.from_array([[True, False]]), numpy.ones((1, 2))
    moments = numpy.zeros(2)
    for step in range(1, 9):
        before = weight.value.copy()
        opt.step()
        moments = numpy.array([0.9, 0.999]) * moments + numpy.array([0.1, 0.001])
        k = max(step / 2, 1)
        line = [numpy.interp(k, numpy.arange(9), 1 - b ** numpy.arange(9)) for b in (0.9, 0.999)]
        expected = 0.1 * moments[0] / line[0] / (moments[1] / line[1]) ** 0.5
        numpy.testing.assert_allclose(before - weight.value, [[expected, 0]], rtol=1e-9)


@pytest.mark.parametrize("every", ["batch", 1, 3])
def test_a_layer_says_which_weights_took_part(every):
    layer = nn.Dense(5, 6, drop_connect=0.8, rows_per_mask=every, rng=0)
    opt = optim.SGD(layer, 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        x = numpy.ones((4, 5), numpy.float32)
        layer.backward(layer.forward(x, training=True))
        mask = MaskStream(0)
        mask.position = layer.stream.position - 1
        kept = mask.draw(
            (5, 6) if every == "batch" else (4, 5, 6), rate=0.8,
            rows_per_mask=1 if every == "batch" else every,
        ).to_array()  # fmt: skip
        kept = kept if every == "batch" else kept.any(axis=0)
        before = layer.weight.copy()
        opt.step()
        assert_identical(layer.weight[~kept], before[~kept])
        assert (layer.weight[kept] != before[kept]).all()


def test_masks_that_do_not_fit():
    weight = masked((4, 5), 0)
    opt = optim.SGD([weight], 0.1)
    before = weight.value.copy()
    weight.mask = numpy.ones((4, 5), bool)
    with pytest.raises(TypeError, match=r"weight: mask must be a fastdrop\.Mask or None"):
        opt.step()
    weight.mask = Mask.from_array(numpy.ones((5, 4)))
    with pytest.raises(ValueError, match=r"weight: mask of shape \(5, 4\) does not fit"):
        opt.step()
    weight.mask = Mask.from_array(numpy.ones((4, 5)))
    weight.columns = (numpy.array([0b10101], numpy.uint8), 0)
    with pytest.raises(ValueError, match="weight: a mask goes with all columns"):
        opt.step()
    assert_identical(weight.value, before)
    for module in (_kernels, reference):
        with pytest.raises(ValueError, match="a mask of weights goes with all columns"):
            module.Update(
                before, before, learning_rate=0.1, kept=numpy.zeros(3, numpy.uint8),
                columns=weight.columns,
            )  # fmt: skip
