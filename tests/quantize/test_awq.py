"""The search for channel scales: it finds the column that matters, and leaves alone what it cannot improve."""

import torch

from localinfer.quantize import awq, gptq
from tests.quantize.test_gptq import GROUP, matrix


def test_large_inputs_get_finer_weights() -> None:
    weights, size = matrix(rows=600), torch.ones(128)
    size[[7, 70]] = 30
    hessian = torch.diag(size**2)
    scale = awq.channel_scales(weights, hessian, 3, GROUP)
    assert scale[7] == scale[70] == scale.max()
    assert scale[7] > 1.5 * scale[8]
    columns, inputs = awq.scaled(weights, hessian, scale)
    plain, better = gptq.nearest(weights, None, 3, GROUP), gptq.nearest(columns, inputs.diagonal(), 3, GROUP)
    assert gptq.cost(columns, *better, inputs).sum() < 0.7 * gptq.cost(weights, *plain, hessian).sum()


def test_the_layer_stays_the_same() -> None:
    weights, x = matrix(), torch.randn(50, 128, generator=torch.Generator().manual_seed(5))
    scale = torch.linspace(0.3, 4, 128)
    columns, inputs = awq.scaled(weights, x.T @ x, scale)
    torch.testing.assert_close((x / scale) @ columns.T, x @ weights.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((x / scale).T @ (x / scale), inputs, rtol=1e-3, atol=1e-3)


def test_nothing_to_scale() -> None:
    weights = matrix()
    assert (awq.channel_scales(weights, torch.eye(128), 4, GROUP) == 1).all()
    assert (awq.channel_scales(weights, torch.full((128, 128), float("nan")), 4, GROUP) == 1).all()
    assert (awq.channel_scales(weights, torch.zeros(128, 128), 4, GROUP) == 1).all()
    assert torch.isfinite(awq.channel_scales(weights, 1e-38 * torch.eye(128), 4, GROUP)).all()
    silent = torch.diag((torch.arange(128) < 3).float())
    assert torch.isfinite(awq.channel_scales(weights, silent, 4, GROUP)).all()
