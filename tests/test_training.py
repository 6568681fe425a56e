"""Training: what is minimised, what stops it, and that an interrupted run continues bit for bit."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from poflow_lite.checkpoints import load_checkpoint, save_checkpoint
from poflow_lite.datasets import TransformationSequences
from poflow_lite.experiments import build_model, recipe
from poflow_lite.objectives import Terms
from poflow_lite.training import Schedule, fit, resolve_device, step_generator

SETTINGS = recipe("digits", "smoke", latent=4, channels=(4, 8), hidden=16, width=4)


def tiny_run(checkpoint=None, steps=12, model="flow-factorized", **options):
    """Train a tiny model on random images; return it with its history."""
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TransformationSequences(images)
    built = build_model(model, SETTINGS, image_shape=(3, 8, 8))
    options = {"run": {"model": model}, "progress": False, "save_every": 4, "log_every": 2} | options
    history = fit(built, lambda g: data.sample(8, 2, g), Schedule(steps), checkpoint=checkpoint, **options)
    return built, history


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- one run ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_weights_and_another_seed_does_not():
    first, _ = tiny_run(seed=1)
    again, _ = tiny_run(seed=1)
    other, _ = tiny_run(seed=2)
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_run()
    assert torch.equal(torch.rand(3), expected)


def test_history_names_every_term_and_ends_at_the_last_step():
    _, history = tiny_run(steps=7)
    assert [entry["step"] for entry in history] == [2, 4, 6, 7]
    assert {"loss", "reconstruction", "kl", "hamilton_jacobi", "autoencoding", "seconds"} <= set(history[0])
    assert history[-1]["seconds"] >= history[0]["seconds"] > 0


def test_the_rate_rises_linearly_then_falls_to_zero_like_a_cosine():
    schedule = Schedule(steps=1000, learning_rate=1.0, warmup=100)
    assert schedule.rate(0) == pytest.approx(0.01)
    assert schedule.rate(500) == pytest.approx(0.5)
    assert schedule.rate(999) < 1e-5
    assert max(schedule.rate(step) for step in range(1000)) < 1.0


def test_step_generators_depend_on_seed_step_and_stream_only():
    places = [(seed, step, stream) for seed in range(3) for step in range(3) for stream in ("data", "noise")]
    draw = {place: torch.rand(4, generator=step_generator(*place)) for place in places}
    assert len({tuple(values.tolist()) for values in draw.values()}) == 18
    assert torch.equal(draw[1, 2, "data"], torch.rand(4, generator=step_generator(1, 2, "data")))


def test_data_and_noise_of_a_step_come_from_different_streams():
    """They were one stream once, so that the noise of some sequences was the numbers that had drawn their frames."""
    first, seen = {}, []

    class Listening(Quadratic):
        def terms(self, batch, generator=None):
            seen.append(torch.rand(4, generator=generator))
            return super().terms(batch, generator)

    def sample(generator):
        first[len(first)] = torch.rand(4, generator=generator)
        return TransformationSequences(torch.rand(2, 3, 8, 8)).sample(1)

    fit(Listening(1.0), sample, Schedule(3), progress=False)
    assert not any(torch.equal(a, b) for a in first.values() for b in seen)


class Quadratic(nn.Module):
    """Loss a·Σ w², so that what clipping and Adam do can be computed by hand."""

    def __init__(self, scale):
        super().__init__()
        self.w, self.scale = nn.Parameter(torch.ones(4)), scale

    def terms(self, batch, generator=None):
        return Terms(-self.scale * self.w.square().sum()[None], torch.zeros(1))


class Nothing:
    """A batch that any device will do for."""

    def to(self, device):
        return self


def test_gradients_are_clipped_to_the_norm_asked_for():
    model = Quadratic(scale=100.0)
    fit(model, lambda g: Nothing(), Schedule(1, clip=1.0), progress=False)
    assert model.w.grad.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_every_gradient_is_zeroed_at_each_step():
    model = Quadratic(scale=1.0)
    fit(model, lambda g: Nothing(), Schedule(50, learning_rate=1e-9), progress=False)
    assert torch.allclose(model.w.grad, torch.full((4,), 2.0), atol=1e-3), "gradients of 50 steps were added up"


@pytest.mark.parametrize("name", ["reconstruction", "kl", "hamilton_jacobi"])
def test_a_term_that_stops_being_finite_is_named(name):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def terms(self, batch, generator=None):
            values = dict.fromkeys(["reconstruction", "kl", "hamilton_jacobi"], self.w.expand(2))
            values[name] = self.w * torch.tensor([1.0, math.nan])
            return Terms(values["reconstruction"], values["kl"], 1.0, {"hamilton_jacobi": values["hamilton_jacobi"]})

    with pytest.raises(FloatingPointError, match=rf"step 0: {name} became NaN"):
        fit(Broken(), lambda g: Nothing(), Schedule(3), progress=False)


@pytest.mark.parametrize(("name", "message"), [("tpu9", "unknown device 'tpu9'"), ("", "unknown device ''")])
def test_an_unknown_device_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused_and_auto_takes_the_cpu():
    with pytest.raises(ValueError, match="no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


# --- interrupted runs ---------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    whole, whole_history = tiny_run(tmp_path / "whole.safetensors")

    class Stop(Exception):
        pass

    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data, drawn = TransformationSequences(images), []

    def stops_at_step_ten(generator):
        drawn.append(1)
        if len(drawn) == 10:
            raise Stop
        return data.sample(8, 2, generator)

    path = tmp_path / "part.safetensors"
    model = build_model("flow-factorized", SETTINGS, image_shape=(3, 8, 8))
    options = {"checkpoint": path, "run": {"model": "flow-factorized"}, "save_every": 4, "log_every": 2}
    with pytest.raises(Stop):
        fit(model, stops_at_step_ten, Schedule(12), progress=False, **options)
    assert load_checkpoint(path).metadata["step"] == 8

    resumed, history = tiny_run(path, resume=True)
    assert same_weights(whole, resumed)
    assert [entry["loss"] for entry in history] == [entry["loss"] for entry in whole_history]
    for number, state in load_checkpoint(path).optimizer.items():
        for name, value in load_checkpoint(tmp_path / "whole.safetensors").optimizer[number].items():
            assert torch.equal(state[name], value)


def test_resuming_after_kill_9_is_bit_exact(tmp_path):
    """The real thing: a process is killed while it trains, whatever it is doing, and another goes on."""
    script = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_training import tiny_run
tiny_run(Path({str(tmp_path / "killed.safetensors")!r}), steps=400, save_every=1)
"""
    path = tmp_path / "killed.safetensors"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    reached = load_checkpoint(path).metadata["step"]
    assert 0 < reached < 400, f"the process was to be killed half-way, it had reached step {reached}"
    resumed, _ = tiny_run(path, steps=400, resume=True, save_every=1000)
    whole, _ = tiny_run(steps=400)
    assert same_weights(whole, resumed)
    assert [file.name for file in tmp_path.iterdir()] == ["killed.safetensors"]


def test_a_finished_run_is_not_trained_further(tmp_path):
    path = tmp_path / "run.safetensors"
    first, _ = tiny_run(path)
    again, history = tiny_run(path, resume=True)
    assert same_weights(first, again)
    assert history[-1]["step"] == 12


@pytest.mark.parametrize("model", ["vae", "flow-factorized"])
def test_every_parameter_survives_a_checkpoint(tmp_path, model):
    built, _ = tiny_run(tmp_path / "run.safetensors", model=model)
    saved = load_checkpoint(tmp_path / "run.safetensors").model
    assert set(saved) == {name for name, _ in built.named_parameters()}
    assert all(torch.equal(saved[name], value) for name, value in built.named_parameters())


def test_resuming_another_run_is_refused_and_says_what_differs(tmp_path):
    path = tmp_path / "run.safetensors"
    tiny_run(path)
    with pytest.raises(ValueError, match=r"another run \(different: model\)"):
        tiny_run(path, model="vae", resume=True)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    tiny_run(path)
    record = load_checkpoint(path).metadata
    save_checkpoint(path, nn.Linear(2, 2), record)
    with pytest.raises(ValueError, match="holds another model than FlowFactorizedVAE"):
        tiny_run(path, resume=True)


def test_a_gradient_that_is_not_finite_stops_training_before_it_reaches_the_weights():
    class Kink(Quadratic):
        def terms(self, batch, generator=None):
            return Terms(-(self.w - 1).abs().sqrt().sum()[None], torch.zeros(1))  # finite, with an infinite slope

    model = Kink(1.0)
    with pytest.raises(FloatingPointError, match="step 0: the loss is finite but its gradient is not, in w"):
        fit(model, lambda g: TransformationSequences(torch.rand(2, 3, 8, 8)).sample(1), Schedule(3), progress=False)
    assert model.w.isfinite().all()
