"""Dropout in a training loop of one's own: NumPy arrays, masks, and products that skip.

A network with one hidden layer learns to add: each example has 20 numbers, the target is the sum of
the first ten minus that of the others, squared. Run it with

    python examples/own_loop.py
"""

import numpy as np

import fastdrop

UNITS = 512
BATCH = 64
STEPS = 1500
RATE = 0.2
LEARNING_RATE = 0.005


def examples(number, rng):
    """Numbers (number, 20) and targets (number, 1), float32."""
    x = rng.standard_normal((number, 20), dtype=np.float32)
    return x, (
        x[:, :10].sum(axis=1, keepdims=True) - x[:, 10:].sum(axis=1, keepdims=True)
    ) ** 2 / 20


def predict(x, w1, b1, w2, b2):
    """Test time: no mask and no scale, since kept units were scaled up in training."""
    return np.maximum(x @ w1 + b1, 0) @ w2 + b2


def main():
    rng = np.random.default_rng(0)
    stream = fastdrop.MaskStream(seed=1)  # made once: every draw takes the next mask
    w1 = rng.normal(0, np.sqrt(2 / 20), (20, UNITS)).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / UNITS), (UNITS, 1)).astype(np.float32)
    b1, b2 = np.zeros(UNITS, np.float32), np.zeros(1, np.float32)
    x_new, y_new = examples(2000, rng)

    for step in range(STEPS):
        x, y = examples(BATCH, rng)
        # One set of units for the batch. The scale comes after the ReLU, with `apply_mask`.
        mask = stream.draw((BATCH, UNITS), rate=RATE, rows_per_mask="batch")
        unscaled = mask.with_scale(1)

        # Forward: dropped units are left out of both products.
        hidden = fastdrop.masked_matmul(x, w1, mask_out=unscaled, bias=b1)
        active = np.maximum(hidden, 0)
        prediction = fastdrop.masked_matmul(active, w2, mask_in=mask, bias=b2)

        # Backward, the same: what was dropped gets gradients of exactly 0.
        grad = 2 * (prediction - y) / BATCH
        grad_active, grad_w2, grad_b2 = fastdrop.masked_matmul_backward(
            grad, active, w2, mask_in=mask
        )
        grad_hidden = grad_active * (hidden > 0)
        _, grad_w1, grad_b1 = fastdrop.masked_matmul_backward(grad_hidden, x, w1, mask_out=unscaled)
        for parameter, gradient in ((w1, grad_w1), (b1, grad_b1), (w2, grad_w2), (b2, grad_b2)):
            parameter -= LEARNING_RATE * (1 - step / STEPS) * gradient

        if step % 500 == 0 or step == STEPS - 1:
            kept = mask.count() / UNITS
            error = np.mean((predict(x_new, w1, b1, w2, b2) - y_new) ** 2)
            share = 1 - error / y_new.var()
            print(f"step {step:4}: {kept:.0%} of the units kept, explained variance {share:.2f}")

    # The same in two lines, where the mask is per element and the product NumPy's own.
    dropped, mask = fastdrop.dropout(active, RATE, rng=stream)
    grad = fastdrop.dropout_backward(np.ones_like(dropped), mask)
    print(f"dropout() of {dropped.shape}: {mask.nbytes} bytes of mask, gradients {np.unique(grad)}")


if __name__ == "__main__":
    main()
