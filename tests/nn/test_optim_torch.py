"""Trajectories of the optimisers' options beside torch's, where torch is installed."""

import numpy
import pytest
from optim_cases import OPTIONS, RATE, give_gradients, make, parameters

torch = pytest.importorskip("torch")

STEPS = 40


def theirs(kind, tensors, **more):
    options = dict(OPTIONS[kind][1])
    name = OPTIONS[kind][0].__name__
    if name == "RMSprop":
        options = {"alpha": 0.9, "weight_decay": 0.0} | options
    elif name != "SGD":
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
        options.setdefault("weight_decay", 0.01 if name == "AdamW" else 0.0)
    return getattr(torch.optim, name)(tensors, RATE, **options, **more)


@pytest.mark.parametrize("clip", [None, "norm", "value", "both"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_trajectories(kind, clip):
    params = parameters()
    tensors = [torch.nn.Parameter(torch.tensor(parameter.value)) for parameter in params]
    more = {}
    if clip in ("value", "both"):
        more["clip_value"] = 0.7
    if clip in ("norm", "both"):
        more["clip_norm"] = 2.5
    groups = [
        {"params": params[:1]},
        {"params": params[1:], "weight_decay": 0, "learning_rate": 0.1},
    ]
    opt = make(kind, groups, average=0.9, **more)
    rival = theirs(
        kind, [{"params": tensors[:1]}, {"params": tensors[1:], "weight_decay": 0, "lr": 0.1}]
    )
    model = torch.nn.ParameterList(tensors)
    ema = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    ema.update_parameters(model)  # the first one copies the weights as they begin
    for step in range(STEPS):
        give_gradients(params, step)
        for parameter, tensor in zip(params, tensors, strict=True):
            tensor.grad = torch.tensor(parameter.grad)
        if clip in ("value", "both"):
            torch.nn.utils.clip_grad_value_(tensors, 0.7)
        if clip in ("norm", "both"):
            torch.nn.utils.clip_grad_norm_(tensors, 2.5)
        opt.step()
        rival.step()
        ema.update_parameters(model)
    # torch divides by the norm plus 1e-6.
    tolerance = {"rtol": 0, "atol": 1e-11 if clip in (None, "value") else 1e-5}
    for parameter, tensor, mean in zip(params, tensors, ema.module, strict=True):
        numpy.testing.assert_allclose(parameter.value, tensor.detach().numpy(), **tolerance)
        average = opt.state_dict()[f"{parameter.name}.average"]
        numpy.testing.assert_allclose(average, mean.detach().numpy(), **tolerance)
