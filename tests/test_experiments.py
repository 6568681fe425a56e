"""Runs by the names of a recipe, and on objects of one's own: training, resuming, loading and measuring."""

import json
import math
import os
import shutil
from dataclasses import asdict
from functools import partial

import pytest
import torch
from PIL import Image
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn

from poflow_lite import experiments
from poflow_lite.datasets import DATASETS, AllAtOnce, ClipSequences, TransformationSequences
from poflow_lite.experiments import MODELS, build_model, evaluate, evaluate_run, load_run, recipe, train, train_recipe
from poflow_lite.fields import AutogradPotential, DivergenceFreeField, Force, FreeField, Potential
from poflow_lite.flows import DiffusionPrior, PushforwardPrior, StaticPrior, Trajectory
from poflow_lite.io import held, load_checkpoint, save_checkpoint
from poflow_lite.metrics import log_likelihood
from poflow_lite.models import VAE
from poflow_lite.networks import Autocast
from poflow_lite.objectives import Terms, diagonal_normal, gaussian_kl, likelihood
from poflow_lite.operators import OPERATORS, fit_operators, with_operator
from poflow_lite.training import Schedule, step_generator

TINY = {"latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "steps": 4, "test_images": 8}
HOW, PAPER = {"device": "cpu", "progress": False}, ["scale", "rotate", "hue"]
measure = partial(evaluate_run, device="cpu", progress=False, pictures=False)


def same_weights(*models):
    one, other = (model.state_dict() for model in models)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(call) lets the training of the call fail after 2 steps, with a checkpoint of them."""
    original = experiments.runs.fit

    def until_the_power_fails(model, sample, schedule, **options):
        batches = iter(range(2))
        options["save_every_seconds"] = 0
        return original(model, lambda draws: (next(batches), sample(draws))[1], schedule, **options)

    def run(call):
        monkeypatch.setattr(experiments.runs, "fit", until_the_power_fails)
        with pytest.raises(StopIteration):
            call()
        monkeypatch.setattr(experiments.runs, "fit", original)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a tiny finished run, evaluated, and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    train_recipe("flow-factorized", "digits", "smoke", folder, seed=3, **HOW, **TINY)
    return folder, evaluate_run(folder, progress=False)


def test_metrics_and_configuration_have_the_promised_fields(finished):
    folder, metrics = finished
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    for field in ("equivariance_error", "no_motion", "median_frame", "reconstruction_floor", "ratio_to_no_motion"):
        assert list(metrics[field]) == PAPER
        assert all(math.isfinite(value) and value > 0 for value in metrics[field].values())
    assert metrics.items() >= {"model": "flow-factorized", "data": "digits", "budget": "smoke", "seed": 3}.items()
    assert min(metrics["seconds"].values()) > 0
    assert metrics["versions"].keys() >= {"torch", "numpy", "python"}
    assert metrics["device"].startswith("CPU")
    assert metrics["data_set"] == "digits (test, 360 images), fixed start, 8 measured"
    likelihoods = metrics["log_likelihood"]
    named = [likelihoods[name] for name in ("sequence", "predictive", "pushed_frame")]
    assert max(*named, *likelihoods["frame"].values()) < likelihoods["ceiling"]
    assert likelihoods["ceiling"] == pytest.approx(-2161.3, abs=0.1)
    assert list(metrics["diffusion"]) == PAPER
    config = json.loads((folder / "config.json").read_text())
    assert (config["latent"], config["data_set"]) == (16, "digits (train, 1,257 images), fixed start")


def test_a_run_leaves_pictures_nothing_half_written_and_no_room_for_a_second_run(finished):
    folder, metrics = finished
    strip, animation = (Image.open(folder / name) for name in ("filmstrip.png", "traversal.gif"))
    assert strip.width > strip.height > 200
    assert animation.n_frames == 16  # t = 0..8 and back
    written = "config.json checkpoint.safetensors metrics.json filmstrip.png motion.gif traversal.gif"
    assert {file.name for file in folder.iterdir()} == set(written.split())
    again, measured = measure(folder), ("equivariance_error", "median_frame", "reconstruction_floor", "log_likelihood")
    assert [again[field] for field in measured] == [metrics[field] for field in measured]
    assert not load_run(folder / "checkpoint.safetensors", "cpu").model.training
    with pytest.raises(ValueError, match=r"is a file: evaluate the folder of a run, or load_pretrained\(NAME\) and"):
        measure(folder / "checkpoint.safetensors")
    for how, message in (
        ({}, r"a run: continue it \(--resume, .*, replace it \(overwrite=True"),
        ({"resume": True}, r"another run \(.*: .*model"),
        ({"resume": True, "overwrite": True}, "resume goes on with a run, overwrite replaces it: choose one"),
    ):
        with pytest.raises(ValueError, match=message):
            train_recipe("vae", "digits", "smoke", folder, **how, **HOW, **TINY)


def test_what_was_measured_is_kept_where_a_picture_fails(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "metrics.json").unlink()
    monkeypatch.setattr(experiments.runs, "save_pictures", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate_run(folder, progress=False)
    assert (folder / "metrics.json").exists()


CRAFTED = [
    ({"hidden": 10**9}, r"settings that make no model \(hidden must be"),  # 125 GB
    ({"channels": [10**9, 8]}, r"settings that make no model \(channels\[0\] must be"),
    ({"hidden": 2**16, "channels": [2**16, 8]}, "another model than FlowFactorizedVAE"),
    ({"image_shape": [3, 2**20, 2**20]}, "another model than"),
    ({"hidden": 10**30}, "settings that make no model"),
    ({"hidden": -1}, "settings that make no model"),
    ({"latent": "many"}, "settings that make no model"),
    ({"channels": 8}, "settings that make no model"),
    ({"image_shape": None}, "settings that make no model"),
    ({"seed": "x"}, "settings that make no model"),
    ({"steps": "many", "options": []}, "settings that make no model"),
    ({"options": {"depth": 10**9}}, r"settings that make no model \(more layers than tensors\)"),
    ({"model": "gan"}, "a 'gan', which is not registered here: call register_model first, or pass model="),
]


@pytest.mark.parametrize(("change", "message"), CRAFTED)
def test_a_record_of_another_network_is_refused_before_its_memory_is_claimed(finished, tmp_path, change, message):
    model, saved = load_run(finished[0], "cpu").model, load_checkpoint(finished[0] / "checkpoint.safetensors")
    saved.metadata["run"] |= change
    save_checkpoint(tmp_path / "x.safetensors", model, saved.metadata)
    with pytest.raises(ValueError, match=rf"x\.safetensors holds {message}") as refusal:
        load_run(tmp_path / "x.safetensors", "cpu")
    assert "\n" not in str(refusal.value)


def test_a_folder_takes_one_training_at_a_time_and_is_free_after_an_error(tmp_path, make_fading):
    training = make_fading(torch.rand(6, *SHAPE, generator=generator()))
    start = partial(train, Fading(), training, Schedule(2), tmp_path, **HOW)
    with held(tmp_path), pytest.raises(ValueError, match=rf"is in use by process {os.getpid()} on .* since .*: wait"):
        start(overwrite=True)
    broken = Fading()
    broken.terms = lambda *_: [][0]
    with pytest.raises(IndexError):
        train(broken, training, Schedule(2), tmp_path, **HOW)
    assert {file.name for file in start().iterdir()} == {"config.json", "checkpoint.safetensors"}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_resumes_bit_exactly_and_is_measured(tmp_path, model, interrupt):
    start = partial(train_recipe, model, "digits", "smoke", share=0.05, **HOW, **TINY)
    whole, parts = start(tmp_path / "whole"), tmp_path / "parts"
    interrupt(lambda: start(parts))
    with pytest.raises(ValueError, match=r"stopped at step 2 of 4: finish it with .*--resume"):
        load_run(parts)
    assert same_weights(*(load_run(folder, "cpu").model for folder in (whole, start(parts, resume=True))))
    metrics = measure(whole)
    assert metrics["settings"]["options"] == experiments.options_of(model)
    assert ("clustering_accuracy" in metrics) == (model == "weakly-supervised")


def test_a_run_trains_with_the_settings_that_it_records(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(experiments.runs, "fit", lambda *parts, **options: seen.update(options, parts=parts))
    sizes = {"steps": 2, "learning_rate": 0.01, "batch_size": 5, "frames": 3}
    train_recipe("vae", "digits", "smoke", tmp_path, seed=3, **HOW, **sizes)
    assert seen["run"].items() >= {"seed": 3, **sizes}.items()
    model, sample, schedule = seen["parts"]
    assert (schedule, seen["seed"], sample(generator()).frames.shape[:2]) == (Schedule(2, 0.01), 3, (5, 4))
    assert same_weights(model, build_model("vae", digits("smoke", "vae"), seed=3))


SCENES = [*((model, "shapes3d-lite", {}) for model in MODELS), ("vae", "falcor3d-lite", {"pixels": 128})]


@pytest.mark.parametrize(("model", "data", "changes"), SCENES)
def test_every_model_takes_a_step_on_scenes(model, data, changes):
    settings = recipe(data, "smoke", model, **changes)
    training = experiments.sequences(data, "train", settings)
    built = build_model(model, settings, training.image_shape, len(training.names)).train()
    batch = training.sample(2, 2, step_generator(0, 0, "data"), **built.draws)
    loss = built.terms(batch, step_generator(0, 0, "noise")).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.encoder.parameters())
    kernels = [p for p in built.decoder.parameters() if p.ndim == 4 and min(p.shape[:2]) > 1]
    assert [p.is_contiguous(memory_format=torch.channels_last) for p in kernels] == 4 * [True]


def test_a_model_that_names_k_is_saved_with_its_indices_in_the_true_order(tmp_path, monkeypatch):
    """Training is a model that infers k rightly but under other names; what is loaded must use the true ones."""
    seen = []

    def found(model, *_, **__):
        seen.append(model.flow.field.inner.detach().clone())
        return 1.0, torch.tensor([1, 2, 0])

    monkeypatch.setattr(experiments.runs, "clustering_accuracy", found)
    options = {"field": "free", "hamilton_jacobi": 0.0, "prior": "static", **TINY}  # no potential, no force, no D_k
    train_recipe("weakly-supervised", "digits", "smoke", tmp_path, **HOW, **options)
    assert torch.equal(load_run(tmp_path, "cpu").model.flow.field.inner, seen[0][[1, 2, 0]])
    metrics = measure(tmp_path)
    assert metrics["diffusion"] == dict.fromkeys(PAPER, 0.0)
    assert 0 < metrics["smallest_eigenvalue"] < 1.1


digits = partial(recipe, "digits")


def build(model="flow-factorized", **changes):
    return build_model(model, digits("smoke", model, **changes))


def test_models_of_one_recipe_start_with_the_same_networks_and_kl_weight():
    models = {name: build(name) for name in MODELS if name not in ("topographic-vae", "msp")}
    for model in models.values():
        assert same_weights(model.encoder, models["vae"].encoder)
        assert same_weights(model.decoder, models["vae"].decoder)
    betas = {name: recipe("digits", "lecture", name).beta for name in MODELS}
    own = {name: betas.pop(name) for name in ("vae", "free-flow", "msp")}
    assert (own, set(betas.values())) == ({"vae": 1.0, "free-flow": 0.1, "msp": 0.01}, {0.03})
    assert experiments.sequences("digits", "train", digits("smoke", labelled=0.01)).labelled == 13  # of 1,257


@pytest.mark.parametrize("split", ["train", "test"])
def test_data_are_those_of_the_recipe_and_only_training_leaves_out_images(split):
    settings = digits("smoke", left_out=(3,), moving="all", start="random", share=0.5)
    found = experiments.sequences("digits", split, settings)
    kind, images, moving = {
        "train": (AllAtOnce, "564 images without 3", ", all at once"),  # half of the 1,127 that are no 3
        "test": (TransformationSequences, "360 images", ""),
    }[split]
    assert (type(found), found.start) == (kind, "random")
    assert found.name == f"digits ({split}, {images}), random start{moving}"


def test_networks_have_the_precision_of_the_recipe():
    for precision, wrapped in (("float32", False), ("bfloat16", True)):
        model = build(precision=precision)
        assert [isinstance(part, Autocast) for part in (model.encoder, model.decoder)] == [wrapped, wrapped]


@pytest.mark.parametrize("model", MODELS)
def test_what_a_recipe_says_of_a_model_reaches_it(model):
    """Each setting is an attribute of the same name, but for those of its parts."""
    options, told = experiments.options_of(model), {"beta": 0.7, "likelihood": "gaussian"}
    numbers = {name: value for name, value in options.items() if not isinstance(value, str)}
    told |= {name: value + 2 for name, value in numbers.items() if name not in ("columns", "depth", "substeps")}
    built = build(model, **told, **{"field": "gradient"} if "field" in options else {})
    assert {name: getattr(built, name) for name in told} == told


@pytest.mark.parametrize("model", ["flow-factorized", "weakly-supervised"])
def test_options_of_the_flow_reach_it(model):
    standard, z, k = build(model), torch.randn(2, 32), torch.tensor([0, 1])
    parts = standard.flow.field, standard.prior, standard.force
    assert [type(part) for part in parts] == [Potential, DiffusionPrior, Force]
    for field, kind in (("free", FreeField), ("divergence-free", DivergenceFreeField)):
        other = build(model, field=field, hamilton_jacobi=0.0)
        assert (type(other.flow.field), other.force) == (kind, None)
    deep = build(model, depth=3, width=5, force="none", prior="static")
    assert (type(deep.flow.field), type(deep.prior), deep.force) == (AutogradPotential, StaticPrior, None)
    assert [weight.shape for weight in deep.flow.field.function.weight] == [(3, 5, 5)] * 2
    assert type(build(model, prior="pushforward").prior) is PushforwardPrior
    fine = build(model, method="rk4", substeps=4, log_det="none").flow
    assert [(flow.substeps, flow.method.order) for flow in (standard.flow, fine)] == [(1, 1), (4, 4)]
    assert not fine.rollout(z, k, range(3)).log_det.any()
    assert standard.flow.rollout(z, k, range(3)).log_det.all()


REFUSED = [
    (lambda: recipe("faces", "smoke"), "unknown data set 'faces'; known: digits, mnist"),
    (lambda: digits("huge"), "unknown budget 'huge'; known: smoke, lecture, full"),
    (lambda: digits("smoke", "gan"), "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
    (lambda: build_model("gan", digits("smoke")), "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
    (lambda: digits("smoke", "vae", gamma=1), "unknown setting of vae 'gamma'; known: steps, batch_size"),
    (lambda: digits("smoke", labelled=2), "labelled must be less than or equal to 1, got 2"),
    (lambda: digits("smoke", share=0), "share must be greater than 0, got 0"),
    (lambda: digits("smoke", precision="half"), "precision must be 'float32' or 'bfloat16', got 'half'"),
    (lambda: build_model("factor-vae", digits("lecture")), "unknown option of factor-vae '.*'; known: gamma"),
    (lambda: build(field="curly"), "field must be 'gradient', 'free' or 'divergence-free', got 'curly'"),
    (lambda: build(force="strong"), "force must be 'learned' or 'none', got 'strong'"),
    (lambda: build(prior="laplace"), "prior must be 'diffusion', 'static' or 'pushforward', got 'laplace'"),
    (lambda: build(log_det="laplacian"), "log_det must be 'exact', 'trace', 'hutchinson' or 'none', got"),
    (lambda: build(method="heun"), "method must be 'euler', 'midpoint' or 'rk4', got 'heun'"),
    (lambda: build(depth=0), "depth must be greater than or equal to 1, got 0"),
    (lambda: build(substeps=1.5), "substeps must be a valid integer, got 1.5"),
    (lambda: build(field="free"), "hamilton_jacobi = 10.0 needs a potential, which a free field does not have"),
    (lambda: build(field="free", hamilton_jacobi=0, depth=2), "depth = 2 needs a potential, .*: set depth to 1"),
    (lambda: build("factor-vae", gamma=-1.0), "gamma must be greater than or equal to 0, got -1.0"),
    (
        lambda: build_model("weakly-supervised", digits("smoke", "weakly-supervised", labelled=0.1)),
        "labels that nothing",
    ),
    (lambda: experiments.register_model("vae", VAE), "there is a model 'vae' already: choose another name"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_a_recipe_cannot_be_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


class Fading(nn.Module):
    """A user's model, no class of the package: latents shrink by e^-rate a frame, whatever k."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.encoder, self.decoder = encoder_and_decoder(2)
        self.rate = nn.Parameter(torch.tensor(rate))

    def encode(self, x):
        mean, log_scale = self.encoder(x).chunk(2, 1)
        return diagonal_normal(mean, log_scale.exp())

    def decode(self, z):
        return likelihood("gaussian", self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1]))

    def rollout(self, z, y, times):
        times = torch.as_tensor(times, dtype=z.dtype)
        path = z[:, None] * torch.exp(-self.rate * (times - times[0]))[:, None]
        return Trajectory(path, (-2 * self.rate * times.diff()).expand(len(z), -1), path.diff(dim=1), y, times)

    def log_prior(self, z, t, y):
        return diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)

    def terms(self, batch, generator=None):
        posterior = self.encode(batch.frames[:, 0])
        path = self.rollout(posterior.mean, batch.k, range(batch.horizon + 1)).z
        seen = self.decode(path.take_along_dim(batch.times[..., None], 1)).log_prob(batch.frames)
        return Terms(seen @ batch.frame_weights, gaussian_kl(posterior.mean, posterior.base_dist.scale))


def test_a_users_model_trains_resumes_loads_and_is_measured_on_a_users_sequences(tmp_path, make_fading, interrupt):
    training = make_fading(torch.rand(6, *SHAPE, generator=generator()), name="mine")
    models = [Fading() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    start = partial(train, training=training, schedule=Schedule(4, 0.05), batch_size=5, seed=2, **HOW)
    whole, parts = start(models[0], out=tmp_path / "whole"), tmp_path / "parts"
    interrupt(lambda: start(models[1], out=parts))
    start(Fading(), out=parts, resume=True)
    fresh = Fading()
    run = load_run(whole, "cpu", model=fresh)
    assert run.model is fresh
    assert same_weights(fresh, load_run(parts, "cpu", model=Fading()).model)
    recorded = run.settings, run.config["model"], run.config["data_set"], run.config["names"]
    assert recorded == (None, "Fading", "mine", ["halve", "still"])
    for call, message in [
        (lambda: load_run(whole), r"by objects of your own \(.*latent.* missing\): train again, or pass model="),
        (lambda: load_run(whole, model=VAE(*encoder_and_decoder())), "another model than VAE"),
        (lambda: start(fresh, schedule=Schedule(4), out=whole, resume=True), r"run \(different: learning_rate\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    halving = make_fading(torch.rand(3, *SHAPE, generator=generator(1)), names=("halve",))
    metrics = {"rate": lambda model, held_out: [model.rate.item(), len(held_out)]}
    with pytest.raises(ValueError, match="this Fading is in training mode: train it first"):
        evaluate(Fading(), halving, halving)
    found = evaluate(fresh.eval(), halving, halving, metrics=metrics, likelihood_images=2, samples=3, progress=False)
    assert found["rate"] == [fresh.rate.item(), 3]
    three = TransformationSequences(training.images, horizon=2)
    likelihood = evaluate(fresh, three, three, likelihood_images=5, samples=3, progress=False)["log_likelihood"]
    assert likelihood == asdict(log_likelihood(fresh, three.first(5).in_turns(), images=5, samples=3))
    assert likelihood["sequences"] == 5, "the error is over images, each under one transformation"
    ratio, error = found["ratio_to_no_motion"]["halve"], found["equivariance_error"]["halve"]
    assert error == pytest.approx(ratio * found["no_motion"]["halve"])
    start(Fading(), out=whole, schedule=Schedule(1), overwrite=True)
    assert load_run(whole, "cpu", model=Fading()).config["steps"] == 1


def test_sequences_that_are_longer_than_the_clock_of_a_flow_are_refused(tmp_path, make_fading):
    training = make_fading(torch.rand(6, 3, 28, 28), horizon=9, name="films")
    message = r"films has sequences of 9 steps, .* FlowFactorizedVAE stops after 8: build it .*horizon=9\)"
    with pytest.raises(ValueError, match=message):
        train(build(), training, Schedule(1), tmp_path / "run", **HOW)
    assert not (tmp_path / "run").exists()


def test_a_run_on_objects_is_continued_on_its_own_data_and_options_only(tmp_path, make_fading):
    images = torch.rand(6, *SHAPE, generator=generator())
    start = partial(train, Fading(), schedule=Schedule(2), out=tmp_path, resume=True, device="cpu")
    for _ in range(2):
        start(make_fading(images, name="mine"))
    for other, told in [
        ({"name": "yours"}, "data_set"),
        ({"name": "mine", "horizon": 3}, "horizon"),
        ({"name": "mine", "start": "random"}, "start"),
    ]:
        with pytest.raises(ValueError, match=rf"belongs to another run \(different: {told}\)"):
            start(make_fading(images, **other))
    with pytest.raises(ValueError, match=r"\(different: data_set, horizon, model, rate, start\)"):
        start(make_fading(images, name="mine"), record={"rate": 0.5})


def videos(split, **settings):
    """Labelled clips, two that rise for each that falls."""
    start, change = torch.rand(2, 9, 1, generator=generator(len(split)))
    rises = torch.arange(9) % 3 > 0
    pixels = (0.5 * start + torch.where(rises, 0.1, -0.1)[:, None] * change * torch.arange(4)).clamp(0, 1)
    return ClipSequences(pixels[..., None, None, None].expand(-1, -1, *SHAPE), rises.long(), ("fall", "rise"))


def careful(recipe, shape, transformations, *, rate=0.25):
    """A user's builder, which looks at a number that is none on PyTorch's meta device."""
    model = Fading(rate)
    if not model.rate.item() > 0:
        raise ValueError("nothing would fade")
    return model


@pytest.mark.parametrize("model", ["mine", "weakly-supervised"])
def test_registered_clips_and_models_go_from_training_by_name_to_operators(tmp_path, monkeypatch, model):
    monkeypatch.setitem(DATASETS, "videos", videos)
    monkeypatch.setattr(experiments.building, "MODELS", dict(MODELS))
    experiments.register_model("mine", careful)
    assert experiments.options_of("mine") == {"rate": 0.25}
    assert build_model("mine", recipe("videos", "smoke", "mine", rate=0.75)).rate.item() == 0.75
    sizes = {"steps": 3, "batch_size": 4, "horizon": 3, "likelihood_images": 2, "samples": 3, "hidden": 16}
    train_recipe(model, "videos", "smoke", tmp_path, **HOW, **sizes)
    metrics, run, clips = measure(tmp_path), load_run(tmp_path, "cpu"), videos("test")
    for k, name in enumerate(clips.names):
        own = clips.clips[clips.of(k)]
        assert metrics["no_motion"][name] == pytest.approx((own[:, 1:] - own[:, :1]).abs().sum().item() / len(own))
    operators = fit_operators(run.model, videos("train"))
    assert list(operators) == [*OPERATORS, "flow"][: 6 if model == "mine" else 7]
    for operator in operators.values():
        moved = with_operator(run.model, operator)
        found = evaluate(moved, clips, videos("train"), likelihood_images=1, samples=2, progress=False)
        assert found["no_motion"] == metrics["no_motion"]
    experiments.save_pictures(run.model, clips, tmp_path, "clips")
