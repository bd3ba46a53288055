"""One link of the fused chain: Dense, activations and dropout, computed as one.

A link draws its mask before it multiplies. Where all rows share the mask, what it hands on is
compact: a matrix of the active units only, and its product uses only the active rows and columns of
the weights, gathered once a step for both directions. Elsewhere it hands on whole rows in which
dropped elements are +0.0, and the products behind it skip those zeros, and those of a ReLU.

    forward    z = x @ w + b    h = f(z)    y = scale * mask ∘ h
    backward   g = scale * mask ∘ grad_y * f'(z)    grad_w = x.T @ g    grad_x = g @ w.T
"""

import numpy

from fastdrop._backend import kernels
from fastdrop.nn.buffers import Buffers
from fastdrop.nn.dense import set_gradient
from fastdrop.nn.layer import fresh
from fastdrop.nn.masks import compress, expand, per_element
from fastdrop.nn.passes import Units
from fastdrop.nn.source import ALL, Source

__all__ = ["Link"]


class Link(Source):
    """Dense (or None), functions of its output, Dropout (or None); see the module.

    Parameters
    ----------
    dense : Dense or None
    functions : sequence of (Layer, str)
        Each with what it is to a fused block, see `Layer.fused_as`.
    dropout : Dropout or None
    source : Source
    dtype : numpy.dtype
    """

    def __init__(self, dense, functions, dropout, source, dtype):
        super().__init__()
        self.dense = dense
        self.dropout = dropout
        self.source = source
        functions = [each for each in functions if each[1] != "identity"]
        # A ReLU at the end needs no array: what passes it and the mask is one bit.
        self.relu = bool(functions) and functions[-1][1] == "relu"
        self.functions = [
            Units(layer, dtype) if kind == "any units" else layer
            for layer, kind in (functions[:-1] if self.relu else functions)
        ]
        self.homogeneous = all(
            kind != "any units" and layer.homogeneous for layer, kind in functions
        )
        self.learns = dense is not None or any(kind == "any units" for _, kind in functions)
        self.dtype = dtype
        self.buffers = Buffers(dtype)
        self.fresh = not functions and dropout is None and dense is not None
        self.scale = 1.0
        self.lead = self.gate = self.x = self.part = None
        self.steps = []

    # --- Forward -----------------------------------------------------------------------------

    def forward(self, x, lead, last, rows=None):
        """Return the output, (rows, active units).

        Parameters
        ----------
        x : numpy.ndarray, shape (rows, columns that the source stores)
        lead : tuple of int
            The shape of the batch without the units.
        last : bool
            Whether the result leaves the network.
        rows : tuple of int, optional
            Of which batch these rows are which, as for `Dropout.draw`.
        """
        source, dense = self.source, self.dense
        self.lead = lead
        self.width = source.width if dense is None else dense.units_out
        self._draw(rows)
        rows = x.shape[0]
        if dense is None:
            y = self._copied(x, rows)
        else:
            if last and self.fresh:
                y = numpy.empty((rows, self.active), self.dtype)
            else:
                y = self.buffers.matrix("y", rows, self.active, rows * self.width)
            self._product(x, y)
        return self._activate(y)

    def _draw(self, rows):
        dropout = self.dropout
        if dropout is None:
            self.active = self.width
            return
        shape = (*self.lead, self.width)
        drawn = dropout.draw(shape, rows)
        self.units, self.active, self.mask = drawn.units, drawn.active, drawn.mask
        self.scale = dropout.scale(shape, rows)
        self.taken = drawn.taken

    def _copied(self, x, rows):
        """The input without a product: its active columns, in an array of our own."""
        x = self._whole_input(x, rows)
        y = self.buffers.matrix("y", rows, self.active, rows * self.width)
        if self.units is not None:
            return compress(x, self.units, y)
        numpy.copyto(y, x)
        return y

    def _whole_input(self, x, rows):
        source = self.source
        if source.units is None:
            return x
        return source.expanded(x, self.buffers.matrix("whole", rows, source.width))

    def _product(self, x, y):
        source = self.source
        parameters = self.dense.parameters()
        weight = parameters[0].value
        bias = parameters[1].value if len(parameters) > 1 else None
        units_in, units_out = source.units, self.units
        if units_in is not None or units_out is not None:
            weight = self._gathered(weight)
            if bias is not None and units_out is not None:
                part = self.buffers.matrix("bias", 1, self.active, self.width)
                bias = compress(bias.reshape(1, -1), units_out, part)[0]
        self.x, self.part = x, weight
        product = kernels.Product(
            x, weight, y, mask_a=source.mask, mask_c=self.mask, bias=bias, fused=True,
            skip_zeros=source.sparse, nonzeros=source.share,
        )  # fmt: skip
        kernels.matmul(product)

    def _gathered(self, weight):
        """The active rows and columns of the weights."""
        inside, outside = self.source.active, self.active
        part = self.buffers.matrix("weight", inside, outside, weight.size)
        compress(weight, self.units, part, self.source.units)
        return part

    def _activate(self, y):
        mask, scale, scratch = self.mask, self.scale, self.buffers.scratch
        self.steps = []
        for number, function in enumerate(self.functions):
            x, out = y, y
            if number or not function.from_output:  # x is needed again
                out = scratch(f"function {number}", y.shape, self.dtype)
            if isinstance(function, Units):
                function.lead = self.lead
            function.apply(x, out, scratch)
            self.steps.append((function.as_applied(), x, out))
            y = out
        if self.relu:
            if self.functions and not isinstance(self.functions[-1], Units):
                y = scratch("relu", y.shape, self.dtype)
                numpy.copyto(y, out)
            return self._rectify(y)
        out = y
        if not self.homogeneous and (mask is not None or scale != 1):
            out = scratch("scaled", y.shape, self.dtype)
        self.gate, self.sparse, self.share = None, False, ALL
        if self.dense is None and not self.functions:
            self.sparse, self.share = self.source.sparse, self.source.share
        if mask is not None:
            self.gate = (mask.bits, mask.shape, mask.rows_per_mask)
            kernels.apply_mask(y, *self.gate, scale, out)
            self.sparse, self.share = True, self.share * mask.density()
        elif scale != 1:
            numpy.multiply(y, scale, out=out)
        return out

    def _rectify(self, y):
        """ReLU, mask and scale in one pass; what is not <= 0 passes, so that NaN does."""
        bits = None if self.mask is None else per_element(self.mask, y.shape[0])
        gate = numpy.empty(-(-y.size // 8), numpy.uint8)
        passing = kernels.rectify(y, bits, self.scale, gate)
        self.share = passing / y.size if y.size else 0.0
        self.sparse = True
        self.gate = (gate, y.shape, 1)
        return y

    # --- Backward ----------------------------------------------------------------------------

    def backward(self, grad, input_gradient, ready=None):
        """Set the gradients of the parameters; return the input's, (rows, columns of the source).

        Parameters
        ----------
        grad : numpy.ndarray, shape (rows, active units)
            With respect to the output; overwritten.
        input_gradient : bool
            Else None is returned.
        ready : callable, optional
            Called with each parameter once its gradient is there, before the input's is computed.
        """
        if self.gate is not None:
            kernels.apply_mask(grad, *self.gate, self.scale, grad)
        elif self.scale != 1:
            numpy.multiply(grad, self.scale, out=grad)
        for function, x, y in reversed(self.steps):
            given = None if function.from_output else x
            function.multiply_derivative(grad, given, y, self.buffers.scratch)
            if ready is not None:
                for parameter in function.parameters():
                    ready(parameter)
        if self.dense is None:
            return self._copied_backward(grad) if input_gradient else None
        self._weight_gradient(grad)
        if ready is not None:
            for parameter in self.dense.parameters():
                ready(parameter)
        return self._input_gradient(grad) if input_gradient else None

    def _copied_backward(self, grad):
        rows = grad.shape[0]
        if self.units is not None:
            grad = expand(grad, self.units, self.buffers.matrix("grad", rows, self.width))
        source = self.source
        if source.units is None:
            return grad
        return compress(grad, source.units, self.buffers.matrix("part", rows, source.active))

    def _weight_gradient(self, grad):
        source = self.source
        inside, outside = source.active, self.active
        parameters = self.dense.parameters()
        size = parameters[0].value.size
        result = self.buffers.matrix("grad weight", inside, outside, size)
        product = kernels.Product(
            self.x.T, grad, result, mask_a=source.mask, mask_b=self.mask, sum_rows=True, fused=True,
            skip_zeros=source.sparse, nonzeros=source.share,
        )  # fmt: skip
        kernels.matmul(product)
        compact = source.units is not None or self.units is not None
        if compact:
            result = self._all_compact(result)
        set_gradient(parameters[0], result, source.taken, self.taken, compact)
        if len(parameters) > 1:
            sums = self.buffers.matrix("grad bias", 1, outside, self.width)[0]
            numpy.add.reduce(grad, axis=0, out=sums)
            set_gradient(parameters[1], sums, None, self.taken, self.units is not None)

    def _all_compact(self, result):
        """Leave out units that no row kept, where the other side's units are left out already."""
        source = self.source
        rows = source.taken if source.units is None else None
        columns = self.taken if self.units is None else None
        if rows is None and columns is None:
            return result
        return numpy.ascontiguousarray(result)[
            numpy.ix_(_indices(rows, result.shape[0]), _indices(columns, result.shape[1]))
        ]

    def _input_gradient(self, grad):
        source = self.source
        rows = grad.shape[0]
        result = self.buffers.matrix("grad", rows, source.active, rows * source.width)
        product = kernels.Product(
            grad, self.part.T, result, mask_a=self.mask, mask_c=source.mask, fused=True,
            skip_zeros=self.sparse, nonzeros=self.share,
        )  # fmt: skip
        kernels.matmul(product)
        return result

    # --- Test time -----------------------------------------------------------------------------

    def infer(self, x, lead):
        """Return the output at test time, of every unit, and the shape of the batch.

        The output is a fresh array; x may be overwritten. Nothing that other threads may use at the
        same time is written: work arrays are fresh, not the buffers of training.
        """
        dense = self.dense
        if dense is None:
            y = x
        else:
            y = numpy.matmul(x, dense.weight)
            if dense.bias is not None:
                numpy.add(y, dense.bias, out=y)
        for function in self.functions:
            if isinstance(function, Units):
                y = function.infer(y, lead)
            else:
                out = y if function.from_output else numpy.empty_like(y)
                function.apply(y, out, fresh)
                y = out
        if self.relu:
            numpy.maximum(y, 0, out=y)
        if self.dropout is not None:
            scale = self.dropout.test_scale((*lead, y.shape[1]))
            if scale != 1:
                numpy.multiply(y, scale, out=y)
        return y, lead


def _indices(units, width):
    if units is None:
        return numpy.arange(width)
    return numpy.flatnonzero(numpy.unpackbits(units, count=width, bitorder="little"))
