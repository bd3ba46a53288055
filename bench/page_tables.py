"""The tables of single pages of the documentation."""

# ruff: noqa: RUF001

from .machines import NONE, grid, listed, ratio_of, time_of, times
from .marks import markdown
from .report import amount
from .roofline import table

__all__ = ["BLOCKS", "STEP", "TORCH", "TORCH_PLAIN"]

TORCH = ("torch, foreach", "torch, fused", "torch, compiled")
TORCH_PLAIN = tuple(f"torch without dropout, {kind}" for kind in ("foreach", "fused", "compiled"))
NUMPY_MASKED = ("np.matmul, apply_mask", "np.matmul, float mask")
STEP = "step/SGD/0.5/128x784x1024x1024x10"


def _copying(machines):
    kinds = ("forward-out/0.5", "forward-out/0.2", "backward/0.5")
    rows = [
        [f"2^{k}", *(ratio_of(f"dropout/{kind}/2^{k}", "copyto") for kind in kinds)]
        for k in (16, 18, 20, 22, 24, 26)
    ]
    return grid(machines, ["elements", "rate 0.5", "rate 0.2", "backward"], rows)


def _steps(machines):
    works = (
        ("784-1024-1024-10, batch 128, SGD", STEP, 1),
        ("the same", STEP, 2),
        ("the same with Adam", STEP.replace("SGD", "Adam"), 2),
        ("784-2048-2048-10, batch 128, SGD", "step/SGD/0.5/128x784x2048x2048x10", 1),
        ("64-256-256-10, batch 64, SGD", "step/SGD/0.5/64x64x256x256x10", 1),
    )
    owns = ("fastdrop", "fastdrop, 32 rows", "fastdrop, per-sample")
    rows = [
        [
            label,
            lambda machine, threads=threads: threads,
            time_of(name, threads),
            *(ratio_of(name, TORCH, threads, own) for own in owns),
            *(ratio_of(name, TORCH_PLAIN, threads, own) for own in owns),
        ]
        for label, name, threads in works
    ]
    header = ["network", "threads", "batchwise", "faster than torch with dropout: batchwise"]
    header += ["32 rows", "per-sample", "than torch without: batchwise", "32 rows", "per-sample"]
    return grid(machines, header, rows)


def _everybody(machines):
    """Return a training step of everybody's, the fastest first."""
    rows = []
    for machine in machines:
        result = machine.result(STEP, 2)
        if result is None:
            continue
        ordered = sorted(result["contenders"], key=lambda one: one["median"])
        for one in ordered:
            ratio = one["ratio"].get("fastdrop")
            faster = times((1 / ratio[2], 1 / ratio[1], 1 / ratio[0])) if ratio else NONE
            time = amount(one["median"], "seconds")
            rows.append([one["name"], time, faster, machine.label])
    return listed(machines, ["who", "a step", "batchwise is faster, times", "machine"], rows)


def _unit_steps(machines):
    works = (
        ("(128×1024)·(1024×1024), 0.5 kept", "matmul/unit-step/0.5/128x1024x1024"),
        ("(128×1024)·(1024×1024), 0.8 kept", "matmul/unit-step/0.8/128x1024x1024"),
        ("(32×1024)·(1024×1024), 0.5 kept", "matmul/unit-step/0.5/32x1024x1024"),
        ("(64×256)·(256×256), 0.5 kept", "matmul/unit-step/0.5/64x256x256"),
        ("groups of 32 rows, (128×1024)·(1024×1024)",
         "matmul/groups-of-32-step/0.5/128x1024x1024"),
        ("groups of 8 rows, the same", "matmul/groups-of-8-step/0.5/128x1024x1024"),
    )  # fmt: skip
    return _products(machines, works, "NumPy gather", "than NumPy's gathering")


def _sparse(machines):
    shapes = ("128x1024x1024", "512x3072x1536")
    works = [
        (f"forward, {shape.replace('x', '×')}, {share} not zero",
         f"matmul/sparse-forward/{share}/{shape}")
        for shape in shapes
        for share in (0.5, 0.25, 0.1)
    ]  # fmt: skip
    works += [
        (f"step, {shape.replace('x', '×')}, 0.25 not zero", f"matmul/sparse-step/0.25/{shape}")
        for shape in shapes
    ]
    return _products(machines, works, "SciPy CSR", "than SciPy's CSR")


def _products(machines, works, other, title):
    rows = [
        [
            label,
            time_of(name, 1),
            *(
                ratio_of(name, rival, threads)
                for rival in ("np.matmul", other)
                for threads in (1, 2)
            ),
        ]
        for label, name in works
    ]
    header = ["work", "1 thread", "faster than `np.matmul`: 1 thread", "2 threads"]
    return grid(machines, [*header, f"{title}: 1 thread", "2 threads"], rows)


def _updates(machines):
    rows = [
        [
            f"{rule}, rate {rate}",
            time_of(name),
            ratio_of(name, "NumPy, in place"),
            ratio_of(name, "torch, fused"),
        ]
        for rule, work in (("SGD, momentum", "sgd-momentum"), ("Adam", "adam"))
        for rate in ("0", "0.5", "0.8")
        for name in [f"update/{work}/{rate}/1024x1024"]
    ]
    return grid(machines, ["rule", "fastdrop", "faster than NumPy", "than torch, fused"], rows)


def _estimators(machines):
    fit = "estimators/fit/digits/0.5/4000x784x1024x1024x10"
    plain = "estimators/fit/digits/0/4000x784x256x256x10"
    passes = "estimators/samples/0.5/1000x784x1024x1024x10"
    sklearn = "scikit-learn"
    works = [
        ("5 epochs, 784-256-256-10, no dropout", plain, "fastdrop", sklearn, sklearn),
        *(
            (f"an epoch, 784-1024-1024-10, rate 0.5, {kind}", fit, own, sklearn, sklearn)
            for kind, own in (
                ("batchwise", "fastdrop"),
                ("32 rows", "fastdrop, 32 rows"),
                ("per-sample", "fastdrop, per-sample"),
            )
        ),
        *(
            ("20 Monte Carlo passes, 784-1024-1024-10", passes, "fastdrop", rival, rival)
            for rival in ("torch", "torch, first layer once", "torch, unit masks",
                          "torch, compiled", "JAX, jit")
        ),
    ]  # fmt: skip
    rows = [
        [work, time_of(name, 1, own), lambda machine, beside=beside: beside,
         ratio_of(name, rival, 1, own)]
        for work, name, own, rival, beside in works
    ]  # fmt: skip
    return grid(machines, ["work, one thread", "fastdrop", "beside", "times faster"], rows)


def _moments(machines):
    rows = [
        [f"{rows}", time_of(name), ratio_of(name, "NumPy"), ratio_of(name, "torch")]
        for rows in (1, 10, 1000)
        for name in [f"estimators/predict-std/0.5/{rows}x32x256x256x1"]
    ]
    return grid(machines, ["rows", "fastdrop", "faster than NumPy by hand", "than torch"], rows)


def _torch(machines):
    works = [
        ("2^20 elements, float32, `p` 0.1", "torch/float32/0.1/2^20"),
        ("2^20 elements, float32, `p` 0.5", "torch/float32/0.5/2^20"),
        ("2^20 elements, bfloat16, `p` 0.1", "torch/bfloat16/0.1/2^20"),
        ("2^20 elements, bfloat16, `p` 0.5", "torch/bfloat16/0.5/2^20"),
        ("1024 elements, float32, `p` 0.1", "torch/float32/0.1/2^10"),
        ("1024 elements, bfloat16, `p` 0.1", "torch/bfloat16/0.1/2^10"),
        ("`scaled_dot_product_attention`, 16 × 8 heads × 128 × 64, `p` 0.1",
         "torch/attention/16x8x128x64"),
        ("two transformer blocks, 512 wide, 16 × 128 tokens, `p` 0.1", "torch/blocks/16x128x512"),
        ("`nn.TransformerEncoderLayer` of that size", "torch/encoder-layer/16x128x512"),
        ("the same, compiled with `torch.compile`", "torch/encoder-layer-compiled/16x128x512"),
        ("784-1024-1024-10, batch 128, SGD: `LinearDropout`, batchwise",
         "torch/perceptron/batch/128x784x1024x1024x10"),
        ("the same, 32 rows", "torch/perceptron/32/128x784x1024x1024x10"),
    ]  # fmt: skip
    rows = [
        [label, *(ratio_of(name, rival, threads)
                  for rival in ("torch", "torch, no dropout") for threads in (1, 2))]
        for label, name in works
    ]  # fmt: skip
    header = ["work", "faster than torch: 1 thread", "2 threads"]
    return grid(machines, [*header, "than torch without dropout: 1 thread", "2 threads"], rows)


def _dask(machines):
    name = "dask/dropout/{rate}/{workers}-workers/2^26"
    rows = [
        [
            f"rate {rate}, {rival}",
            *(ratio_of(name.format(rate=rate, workers=count), rival, count) for count in (1, 2)),
        ]
        for rate in ("0.5", "0.2")
        for rival in ("map_blocks(numpy.copy)", "dask.array.random")
    ]
    return grid(machines, ["dropout of 2^26 elements, beside", "1 thread", "2 threads"], rows)


def _package(machines):
    rows = []
    for machine in machines:
        imported = machine.result("package/import", 1)
        installed = machine.result("package/installed", 1)
        wheel = machine.contender("package/wheel", 1, "fastdrop")
        if imported is None or installed is None or wheel is None:
            continue
        place = {one["name"]: one["median"] for one in installed["contenders"]}
        for one in imported["contenders"]:
            size = place.get(one["name"])
            rows.append(
                [
                    one["name"],
                    amount(one["median"], "seconds"),
                    NONE if size is None else amount(size, "bytes"),
                    amount(wheel["median"], "bytes") if one["name"] == "fastdrop" else "",
                    machine.label,
                ]
            )
    header = ["package", "a process that imports NumPy and it", "on the disk", "wheel", "machine"]
    return listed(machines, header, rows)


def _slower(machines):
    def longer(name, rival, own="fastdrop"):
        def cell(machine):
            ratio = machine.faster(name, rival, own=own)
            return NONE if ratio is None else f"{1 / ratio[1]:.2f}"

        return cell

    def joined(*parts):
        """Join texts, and functions of a machine that make texts."""
        return lambda machine: "".join(
            part if isinstance(part, str) else part(machine) for part in parts
        )

    copy = "dropout/forward-out/{}/2^{}"
    two = "matmul/unit-step/0.5/128x1024x1024"
    rows = [
        [
            "`dropout` of an array that fits in the cache, beside a plain copy",
            joined(
                longer(copy.format(0.5, 16), "copyto"), " (rate 0.5) and ",
                longer(copy.format(0.2, 16), "copyto"),
                " (0.2) times as long as `np.copyto` at 2^16 elements, ",
                longer(copy.format(0.5, 20), "copyto"), " and ",
                longer(copy.format(0.2, 20), "copyto"), " at 2^20",
            ),
            "`python -m bench dropout`",
        ],
        [
            "any rate but 0.5, 0.25, 0.75, beside a loop of numba with a hash for a generator",
            joined(longer(copy.format(0.2, 20), "numba loop, hashed"),
                   " times as long at 2^20 elements, rate 0.2"),
            "`python -m bench dropout`",
        ],
        [
            "masked products that keep nearly everything",
            joined(longer("matmul/any-sample/0.9/128x1024x1024", NUMPY_MASKED),
                   " times as long as the dense product, 0.9 kept"),
            "`python -m bench matmul/any`",
        ],
        [
            "groups of 8 rows, beside one mask for the batch",
            joined(ratio_of("matmul/groups-of-8-step/0.5/128x1024x1024", "np.matmul"),
                   " times faster than dense instead of ", ratio_of(two, "np.matmul")),
            "`python -m bench matmul/groups`",
        ],
        [
            "a second thread",
            joined(ratio_of(two, "np.matmul", 2), " times faster than dense on two, ",
                   ratio_of(two, "np.matmul"), " on one"),
            "`python -m bench matmul/unit-step`",
        ],
        [
            "a step without any dropout, beside torch without",
            joined(ratio_of(STEP, TORCH_PLAIN, 1, "fastdrop, no dropout"), " times faster on one, ",
                   ratio_of(STEP, TORCH_PLAIN, 2, "fastdrop, no dropout"), " on two threads"),
            "`python -m bench step`",
        ],
    ]  # fmt: skip
    made = [
        [where, how(machine), f"{command}, {machine.label}"]
        for where, how, command in rows
        for machine in machines
        if "–" not in how(machine)  # nobody has measured it there
    ]
    return markdown(["where", "how much", "measured by, on"], made)


def _roofline(machines):
    made = []
    for machine in machines:
        for found in machine.document.get("roofline", []):
            threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
            made.append(f"{machine.label}, {threads}, {found['date']}:\n\n{table(found['rows'])}")
    return "\n\n".join(made) or "Not measured yet."


BLOCKS = {
    "copying": _copying,
    "steps": _steps,
    "everybody": _everybody,
    "unit-steps": _unit_steps,
    "sparse": _sparse,
    "updates": _updates,
    "estimators": _estimators,
    "torch": _torch,
    "dask": _dask,
    "package": _package,
    "roofline": _roofline,
    "moments": _moments,
    "slower": _slower,
}
