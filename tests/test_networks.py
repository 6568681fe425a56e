"""Shapes, errors and connectivity of the convolutional encoder and decoder."""

import pytest
import torch

from poflow_lite.networks import Autocast, ConvDecoder, ConvEncoder


@pytest.mark.parametrize(
    ("image_shape", "channels"), [((3, 28, 28), (4, 8)), ((1, 8, 16), (4, 4, 4)), ((3, 64, 64), (2, 2, 2, 2))]
)
def test_encoder_gives_mean_and_log_scale_and_decoder_the_image_shape(image_shape, channels):
    encoder = ConvEncoder(image_shape, latent=5, channels=channels, hidden=16)
    decoder = ConvDecoder(image_shape, latent=5, channels=channels, hidden=16)
    assert encoder(torch.rand(2, *image_shape)).shape == (2, 10)
    assert decoder(torch.randn(2, 5)).shape == (2, *image_shape)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize("size", [(30, 28), (28, 26)])
def test_a_size_that_cannot_be_halved_is_refused_with_its_numbers(network, size):
    with pytest.raises(ValueError, match=rf"multiples of 4, got {size[0]}×{size[1]}"):
        network((3, *size), 5, channels=(4, 8))


def test_wrong_inputs_are_refused_with_both_shapes():
    encoder, decoder = (net((3, 8, 8), 5, (4,), 8) for net in (ConvEncoder, ConvDecoder))
    with pytest.raises(ValueError, match=r"takes images \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        encoder(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"takes latents \(B, 5\), got \(2, 4\)"):
        decoder(torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"takes latents \(B, 5\), got \(2, 3, 5\)"):
        decoder(torch.randn(2, 3, 5))


@pytest.mark.parametrize(("network", "input_shape"), [(ConvEncoder, (3, 8, 8)), (ConvDecoder, (5,))])
def test_samples_do_not_mix_and_every_parameter_and_input_matters(network, input_shape):
    module = network((3, 8, 8), 5, channels=(4, 6), hidden=8)
    x = torch.randn(4, *input_shape, requires_grad=True)
    out, order = module(x), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(x[order]), out[order])
    gradients = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(("network", "input_shape"), [(ConvEncoder, (3, 8, 8)), (ConvDecoder, (5,))])
def test_outputs_are_not_squashed_by_a_last_activation(network, input_shape):
    out = network((3, 8, 8), 5, channels=(4,), hidden=8)(100 * torch.randn(64, *input_shape))
    assert out.min() < -1  # SiLU never falls below -0.28
    assert out.max() > 1


def test_autocast_computes_in_bfloat16_but_keeps_parameters_and_outputs_in_float32():
    seen, network = [], ConvDecoder((3, 8, 8), 5, channels=(4,), hidden=8)
    network.network[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    z = torch.randn(6, 5)
    exact, rounded = network(z), Autocast(network)(z)
    assert seen == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)
    rounded.square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0 for p in network.parameters())
