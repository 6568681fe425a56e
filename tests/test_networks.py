"""Shapes, errors and connectivity of the convolutional networks."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from poflow_lite.networks import (
    Autocast,
    ConvDecoder,
    ConvEncoder,
    PatchDecoder,
    PatchEncoder,
    TransformationEncoder,
    seeded,
)

BOTH = pytest.mark.parametrize(("network", "input_shape"), [(ConvEncoder, (3, 8, 8)), (ConvDecoder, (5,))])


@pytest.mark.parametrize(
    ("image_shape", "channels"), [((3, 28, 28), (4, 8)), ((1, 8, 16), (4, 4, 4)), ((3, 64, 64), (2, 2, 2, 2))]
)
def test_encoder_gives_mean_and_log_scale_and_decoder_the_image_shape(image_shape, channels):
    encoder = ConvEncoder(image_shape, latent=5, channels=channels, hidden=16)
    decoder = ConvDecoder(image_shape, latent=5, channels=channels, hidden=16)
    assert encoder(torch.rand(2, *image_shape)).shape == (2, 10)
    assert decoder(torch.randn(2, 5)).shape == (2, *image_shape)


@pytest.mark.parametrize(
    ("network", "shape", "x", "message"),
    [
        (ConvEncoder, (3, 30, 28), None, "multiples of 4, got 30×28"),
        (ConvDecoder, (3, 28, 26), None, "multiples of 4, got 28×26"),
        (ConvEncoder, (3, 8, 8), torch.rand(2, 1, 8, 8), r"takes images \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"),
        (ConvDecoder, (3, 8, 8), torch.rand(2, 4), r"takes latents \(B, 5\), got \(2, 4\)"),
        (ConvDecoder, (3, 8, 8), torch.rand(2, 3, 5), r"takes latents \(B, 5\), got \(2, 3, 5\)"),
    ],
)
def test_wrong_sizes_are_refused_with_their_numbers(network, shape, x, message):
    with pytest.raises(ValueError, match=message):
        network(shape, 5, (4, 8))(x)


@BOTH
def test_samples_do_not_mix_every_parameter_and_input_matters_and_outputs_are_not_squashed(network, input_shape):
    module = network((3, 8, 8), 5, channels=(4, 6), hidden=8)
    x = torch.randn(4, *input_shape, requires_grad=True)
    out, order = module(x), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(x[order]), out[order])
    gradients = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)
    far = module(100 * torch.randn(64, *input_shape))
    assert far.min() < -1  # SiLU never falls below -0.28
    assert far.max() > 1


def test_what_infers_k_looks_at_all_pairs_with_frame_zero():
    module, frames = TransformationEncoder((3, 8, 8), 4, (4,), 6), torch.rand(5, 4, 3, 8, 8)
    logits = module(frames)
    assert logits.shape == (5, 4)
    torch.testing.assert_close(logits, sum(module(frames[:, [0, t]]) for t in (1, 2, 3)) / 3)
    assert not torch.allclose(module(frames.flip(1)), logits)


def test_autocast_computes_in_bfloat16_but_keeps_parameters_and_outputs_in_float32():
    seen, network = [], ConvDecoder((3, 8, 8), 5, channels=(4,), hidden=8)
    network.network[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    z = torch.randn(6, 5)
    exact, rounded = network(z), Autocast(network)(z)
    assert seen == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)
    rounded.square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0 for p in network.parameters())


def test_patches_are_seen_alike_and_every_pixel_can_be_drawn():
    shape, x = (3, 8, 12), torch.rand(2, 3, 8, 12)
    encoder, decoder = PatchEncoder(shape, 5, (6,), 16), PatchDecoder(shape, 5, (6,), 16)
    assert (encoder(x).shape, decoder(torch.randn(2, 5)).shape) == ((2, 10), (2, *shape))
    features = encoder.network[0](x.roll(4, 3))  # by one patch
    torch.testing.assert_close(features, encoder.network[0](x).roll(1, 3))
    assert decoder(torch.randn(2, 5)).sigmoid().mean() < 0.2
    decoder(torch.randn(4, 5)).sum().backward()
    assert all(p.grad.any() for p in (*decoder.parameters(),))
    for network in (PatchEncoder, PatchDecoder):
        with pytest.raises(ValueError, match=r"patches of 4×4, .* got 30×28: use strided convolutions"):
            network((3, 30, 28), 5)
        with pytest.raises(
            ValueError, match="patches take one number of features, such as channels=32, got channels=4"
        ):
            network(shape, 5, (4, 8))
    with pytest.raises(ValueError, match=r"takes images \(B, 3, 8, 12\), got \(2, 3, 12, 8\)"):
        encoder(x.mT)


def test_threads_that_build_at_once_get_the_weights_of_their_own_seeds():
    def build(seed):
        with seeded(seed):
            time.sleep(0.01)
            return torch.nn.Linear(3, 2).weight

    before = torch.get_rng_state()
    expected = [build(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert all(map(torch.equal, threads.map(build, range(8)), expected))
    assert torch.equal(torch.get_rng_state(), before)
