import pytest
import torch

from task_aware.models.separator import (
    ChannelLayerNorm,
    DepthwiseConv1d,
    GlobalLayerNorm,
    MaskNetwork,
    MaskNetworkConfig,
    pointwise,
    preset,
)


@pytest.mark.parametrize(("name", "parameters"), [("conv_tasnet_text", 437_983), ("conv_tasnet_3m", 3_121_439)])
def test_presets_have_the_sizes_of_the_paper(name, parameters):
    network = MaskNetwork(preset(name, n_mels=128, n_sources=5))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_logits_have_a_mask_per_source_at_any_length():
    network = MaskNetwork(MaskNetworkConfig(n_mels=16, n_sources=3, bottleneck=4, hidden=8, skip=4, blocks=3))
    for n_frames in (1, 7, 50):
        assert network(torch.randn(2, 16, n_frames)).shape == (2, 3, 16, n_frames)


def test_global_layer_norm_is_over_channels_and_time():
    x = torch.randn(3, 5, 7, dtype=torch.float64) * 4 + 2
    norm = GlobalLayerNorm(5).double()
    mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), (x - mean) / (var + 1e-8).sqrt())


def test_channel_layer_norm_is_over_the_channels_of_each_frame():
    x = torch.randn(3, 5, 7, dtype=torch.float64) * 4 + 2
    norm = ChannelLayerNorm(5).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    standard = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(norm(x), standard * norm.weight[:, None] + norm.bias[:, None])


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_network_does_not_hear_what_comes_later(causal):
    torch.manual_seed(0)
    network = MaskNetwork(preset("small", n_mels=16, n_sources=2, causal=causal)).eval()
    features = torch.randn(1, 16, 60)
    other = features.clone()
    other[..., 40:] = torch.randn(1, 16, 20)
    same = torch.isclose(network(features), network(other), atol=1e-5).all((0, 1, 2))
    assert not same[40:].any()
    assert same[:40].all() == causal


@pytest.mark.parametrize("n_frames", [3, 50])
@pytest.mark.parametrize("causal", [True, False])
def test_a_depthwise_convolution_with_its_activation_is_the_two(causal, n_frames):
    layer, activation = DepthwiseConv1d(6, 4, causal=causal).double(), torch.nn.PReLU(dtype=torch.float64)
    x = torch.randn(2, 6, n_frames, dtype=torch.float64, requires_grad=True)
    leaves = [x, layer.weight, layer.bias, activation.weight]
    out, wanted = (layer.activated(x, activation, backend) for backend in ("native", "reference"))
    torch.testing.assert_close(out, wanted)
    grad = torch.randn_like(out)
    of_native, of_reference = (torch.autograd.grad(y, leaves, grad) for y in (out, wanted))
    torch.testing.assert_close(of_native, of_reference)


@pytest.mark.parametrize("n_items", [0, 1, 3])
@pytest.mark.parametrize("widths", [(4,), (4, 1, 6)])
def test_pointwise_convolutions_are_one_product(n_items, widths):
    layers = [torch.nn.Conv1d(5, width, 1).double() for width in widths]
    x = torch.randn(n_items, 5, 7, dtype=torch.float64, requires_grad=True)
    out = pointwise(x, *layers, backend="auto")
    wanted = pointwise(x, *layers, backend="reference")
    leaves = [x, *(parameter for layer in layers for parameter in layer.parameters())]
    torch.testing.assert_close(out, wanted)
    for left, right in zip(
        *(torch.autograd.grad(y.square().sum(), leaves) for y in (out, wanted)),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_autocast_gives_the_mask_network_bfloat16():
    network = MaskNetwork(MaskNetworkConfig(n_mels=8, n_sources=2, bottleneck=4, hidden=6, skip=4, blocks=2, repeats=2))
    features = torch.randn(3, 8, 20)
    logits = {}
    for backend in ("auto", "reference"):
        network.backend = backend
        with torch.autocast("cpu", torch.bfloat16):
            logits[backend] = network(features)
    assert logits["auto"].dtype == logits["reference"].dtype == torch.bfloat16
    torch.testing.assert_close(*logits.values(), rtol=0.05, atol=0.05)


def test_dilations_start_over_with_every_repeat():
    network = MaskNetwork(preset("conv_tasnet_text", n_mels=8, n_sources=2))
    dilations = [block.shared[3].dilation[0] for block in network.blocks]
    assert dilations == [1, 2, 4, 8, 16] * 3


def test_unknown_presets_and_sizes_are_named():
    with pytest.raises(ValueError, match="no separator preset is called 'huge'"):
        preset("huge", n_mels=8, n_sources=2)
    with pytest.raises(ValueError, match="separator.n_sources is 0"):
        MaskNetworkConfig(n_sources=0)
