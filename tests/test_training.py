"""Training: what is minimised and how, what stops it, and that an interrupted run continues bit for bit."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from draws import rng
from torch import nn

from poflow_lite import training
from poflow_lite.datasets import TransformationSequences
from poflow_lite.experiments import build_model, recipe
from poflow_lite.io import held, load_checkpoint, save_checkpoint
from poflow_lite.objectives import Terms
from poflow_lite.training import Losses, Schedule, fit, resolve_device, step_generator


def tiny_run(checkpoint=None, steps=11, model="flow-factorized", stop=None, **options):
    """Train a tiny model on random images; return it with its history. ``stop``: the step that never comes."""
    data, drawn = TransformationSequences(torch.rand(20, 3, 8, 8, generator=rng())), []

    def sample(generator):
        drawn.append(1)
        if len(drawn) == stop:
            raise KeyboardInterrupt
        return data.sample(8, 2, generator)

    settings = recipe("digits", "smoke", model, latent=4, channels=(4, 8), hidden=16, width=4)
    built = build_model(model, settings, image_shape=(3, 8, 8))
    options = {"run": {"model": model}, "progress": False, "save_every_seconds": 0, "log_every": 2} | options
    return built, fit(built, sample, Schedule(steps), checkpoint=checkpoint, **options)


def same_weights(one, other):
    return torch.equal(*(nn.utils.parameters_to_vector(model.parameters()) for model in (one, other)))


def test_the_seed_alone_decides_the_weights_and_the_global_random_state_is_left_alone(monkeypatch):
    torch.manual_seed(5)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("nor are those of GPUs seeded"))
    (first, _), (again, _), (other, _) = tiny_run(seed=1), tiny_run(seed=1), tiny_run(seed=2)
    drawn = torch.rand(3)
    torch.default_generator.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert same_weights(first, again)
    assert not same_weights(first, other)


class Scaled(nn.Module):
    """Terms of weights w that start at 1, made by a function; what comes in is noted."""

    def __init__(self, terms):
        super().__init__()
        self.w, self.made, self.generators = nn.Parameter(torch.ones(4)), terms, []

    def terms(self, batch, generator=None):
        self.generators.append(generator)
        return self.made(self.w)


def descend(terms, steps=3, sample=lambda generator: None, schedule=None, **options):
    """Train :class:`Scaled` on batches that hold nothing."""
    model, batch = Scaled(terms), SimpleNamespace(to=lambda device: None)
    fit(model, lambda generator: sample(generator) or batch, schedule or Schedule(steps), progress=False, **options)
    return model


@pytest.mark.parametrize("schedule", [Schedule(40, 0.1, warmup=10), Schedule(40, 0.1, warmup=10, clip=1.0)])
def test_weights_go_as_adam_by_hand_at_the_rate_of_the_schedule(schedule):
    """Kingma & Ba 2015 with β = (0.9, 0.99), of gradients that are clipped to a norm and then forgotten."""
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = (
        descend(lambda w: Losses({"quadratic": 0.5 * (scale * w**2).sum()[None]}), schedule=schedule).w.detach().numpy()
    )
    w, mean, square = np.ones(4), np.zeros(4), np.zeros(4)
    for step in range(40):
        gradient = scale.numpy() * w
        gradient *= min(1.0, schedule.clip / np.linalg.norm(gradient))
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        adam = mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-8)
        rate = 0.1 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / 40))
        w = w - rate * adam
    assert found == pytest.approx(w, rel=1e-3, abs=1e-5)


def test_a_schedule_without_warm_up_starts_at_its_peak_and_one_that_cannot_be_is_refused():
    assert Schedule(10, 0.1, warmup=0).rate(0) == 0.1
    refused = {"steps": (0, 2.5), "warmup": (-1,), "learning_rate": (0.0, -1.0, math.nan), "clip": (0.0, math.nan)}
    for name, value in ((name, value) for name, values in refused.items() for value in values):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
            Schedule(**{"steps": 10, name: value})


def test_a_schedule_of_numpy_numbers_can_be_saved():
    schedule = Schedule(np.int64(1), np.float32(0.5), warmup=np.int64(0))
    assert json.loads(json.dumps(asdict(schedule))) == asdict(Schedule(1, 0.5, warmup=0))


def test_draws_depend_on_seed_step_and_stream_only_and_those_of_data_and_noise_differ():
    """They were one stream once, so that the noise of some sequences was the numbers that had drawn their frames."""
    places = [(seed, step, stream) for seed in range(3) for step in range(3) for stream in ("data", "noise")]
    draw = {place: torch.rand(4, generator=step_generator(*place)).tolist() for place in places}
    assert len({tuple(values) for values in draw.values()}) == 18
    assert draw[1, 2, "data"] == torch.rand(4, generator=step_generator(1, 2, "data")).tolist()
    data = []
    model = descend(lambda w: Losses({"loss": w}), sample=data.append, seed=2)
    for stream, generators in (("data", data), ("noise", model.generators)):
        assert [torch.rand(4, generator=g).tolist() for g in generators] == [draw[2, step, stream] for step in range(3)]


@pytest.mark.parametrize("name", ["reconstruction", "kl", "hamilton_jacobi"])
def test_a_term_that_stops_being_finite_is_named(name):
    def terms(w):
        values = {n: w * (math.nan if n == name else 1.0) for n in ("reconstruction", "kl", "hamilton_jacobi")}
        return Terms(values.pop("reconstruction"), values.pop("kl"), 1.0, values)

    with pytest.raises(FloatingPointError, match=rf"step 0: {name} became NaN"):
        descend(terms)


def test_a_gradient_that_is_not_finite_stops_training_before_it_reaches_the_weights():
    kept = []
    with pytest.raises(FloatingPointError, match="step 0: the loss is finite but its gradient is not, in w"):
        descend(lambda w: kept.append(w) or Losses({"kink": (w - 1).abs().sqrt()}))  # finite, with an infinite slope
    assert torch.equal(kept[0], torch.ones(4))


def test_auto_is_cuda_where_there_is_one_and_unknown_or_absent_devices_are_refused(monkeypatch):
    for there, chosen in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto").type == chosen
    unknown = {name: f"unknown device '{name}': use auto, cpu or cuda" for name in ("tpu9", "", "mps", "meta")}
    for name, message in {"cuda": "no CUDA device", "cpu:1": "no cpu:1, the last one is cpu:0", **unknown}.items():
        with pytest.raises(ValueError, match=message):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="this machine has no cuda:9, the last one is cuda:1: use auto, cpu or cuda"):
        resolve_device("cuda:9")


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit_and_a_finished_one_stays(tmp_path):
    paths = [tmp_path / name for name in ("whole.safetensors", "part.safetensors")]
    whole, expected = tiny_run(paths[0])
    logged = [(entry["step"], entry["learning_rate"]) for entry in expected]
    assert logged == [(n, Schedule(11).rate(n - 1)) for n in (2, 4, 6, 8, 10, 11)]
    assert {"loss", "reconstruction", "kl", "hamilton_jacobi", "autoencoding", "seconds"} < set(expected[0])
    with pytest.raises(KeyboardInterrupt):
        tiny_run(paths[1], stop=10)
    assert load_checkpoint(paths[1]).metadata["step"] == 9
    for stop in (None, 1):  # no batch is drawn for the second
        resumed, history = tiny_run(paths[1], stop=stop, resume=True)
        assert same_weights(whole, resumed)
        assert [entry["loss"] for entry in history] == [entry["loss"] for entry in expected]
    one, other = (load_checkpoint(path) for path in paths)
    assert set(one.model) == {name for name, _ in whole.named_parameters()}
    assert all(torch.equal(one.model[name], value) for name, value in whole.named_parameters())
    for number, state in one.optimizer.items():
        assert all(torch.equal(state[name], value) for name, value in other.optimizer[number].items())


def test_resuming_after_kill_9_is_bit_exact(tmp_path):
    """The real thing: a process is killed in its first 20 steps, whatever it is doing, and another goes on."""
    path = tmp_path / "killed.safetensors"
    script = f"""
import sys, time; sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_training import tiny_run
try:
    tiny_run(Path({str(path)!r}), steps=100, stop=21)
except KeyboardInterrupt:  # where it would be too late, it waits
    time.sleep(900)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 600
        while not path.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    reached = load_checkpoint(path).metadata["step"]
    assert 0 < reached <= 20, f"the process was to be killed in its first 20 steps, it had reached step {reached}"
    with held(tmp_path):  # which removes what the other process had half-written
        resumed, _ = tiny_run(str(path), steps=100, resume=True, save_every_seconds=1000)
    assert same_weights(tiny_run(steps=100)[0], resumed)
    assert [file.name for file in tmp_path.iterdir()] == ["killed.safetensors"]


def test_settings_may_hold_tuples_which_a_file_gives_back_as_lists(tmp_path):
    path, run = tmp_path / "run.safetensors", {"channels": (4, 8)}
    whole, _ = tiny_run(path, run=run)
    assert same_weights(whole, tiny_run(path, run=run, resume=True)[0])


def test_resuming_another_run_or_weights_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    tiny_run(path)
    with pytest.raises(ValueError, match=r"another run \(different: model\)"):
        tiny_run(path, model="vae", resume=True)
    save_checkpoint(path, nn.Linear(2, 2), load_checkpoint(path).metadata)
    with pytest.raises(ValueError, match="holds another model than FlowFactorizedVAE"):
        tiny_run(path, resume=True)


def test_a_checkpoint_is_written_every_30_seconds_and_holds_what_comes_last(tmp_path, monkeypatch):
    clock, saved, model = [0.0], [], Scaled(lambda w: Losses({"loss": w}))
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(training, "save_checkpoint", lambda *a: saved.append(a[2]["step"]) or save_checkpoint(*a))
    batch = SimpleNamespace(to=lambda device: clock.append(clock.pop() + 12.0))  # a step takes 12 seconds
    options = {"checkpoint": tmp_path / "run", "run": {}, "progress": False, "finish": lambda: model.w.data.fill_(7)}
    fit(model, lambda generator: batch, Schedule(11), **options)
    assert saved == [3, 6, 9, 11]
    assert load_checkpoint(tmp_path / "run").model["w"].tolist() == 4 * [7]
    for value, told in ((math.nan, "a finite number, got nan"), (-1, "greater than or equal to 0, got -1")):
        with pytest.raises(ValueError, match=f"^save_every_seconds must be {told}$"):
            fit(model, lambda generator: batch, Schedule(11), save_every_seconds=value)


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="Scaled and its record cannot be saved"):
        descend(lambda w: pytest.fail("a step"), checkpoint=tmp_path / "run", run={"data": object()})


def half(saved):
    return [state.update(exp_avg=state["exp_avg"].half()) for state in saved.optimizer.values()]


FOREIGN = [
    (lambda s: s.model.update(w=s.model["w"].double()), "holds another model than Scaled with these"),
    (lambda s: s.model.update(w=s.model["w"].int()), "holds another model than Scaled with these"),
    (lambda s: s.model.update(w=s.model["w"][:3]), "holds another model than Scaled with these"),
    (lambda s: s.model.update(v=s.model["w"]), "holds another model than Scaled with these"),
    (lambda s: s.model["w"].fill_(math.nan), r"weights that are NaN or infinite \(w\): train again"),
    (lambda s: s.optimizer.clear(), "holds no state of Adam, as exported copies do"),
    (lambda s: s.optimizer.update({1: s.optimizer[0]}), "state of Adam that does not fit this model"),
    (lambda s: s.optimizer[0].pop("exp_avg"), "state of Adam that does not fit this model"),
    (lambda s: s.optimizer[0].update(exp_avg=torch.ones(1)), "state of Adam that does not fit this model"),
    (lambda s: s.optimizer[0]["exp_avg_sq"].fill_(math.inf), "state of Adam that does not fit this model"),
    (half, "state of Adam that does not fit this model"),
    (lambda s: s.metadata.update(step=12), "has done 12 steps, more than the 11 asked for"),
]


@pytest.mark.parametrize(("spoil", "message"), FOREIGN)
def test_a_state_that_is_not_of_this_training_is_refused_on_resuming(tmp_path, monkeypatch, spoil, message):
    path = tmp_path / "run"
    model = descend(lambda w: Losses({"loss": w}), checkpoint=path, run={})
    saved = load_checkpoint(path)
    spoil(saved)
    monkeypatch.setattr(training, "load_checkpoint", lambda path: saved)
    with pytest.raises(ValueError, match=rf"{path} .*{message}"):
        descend(model.made, steps=11, checkpoint=path, run={}, resume=True)
