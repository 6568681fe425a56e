"""Runs: recipes, models from names, training into a folder and what evaluation leaves there."""

import json
import math
from functools import partial

import pytest
import torch
from PIL import Image

from poflow_lite import experiments
from poflow_lite.datasets import load_stills
from poflow_lite.deep_potentials import DeepPotential
from poflow_lite.fields import DivergenceFreeField, FreeField
from poflow_lite.flows import DiffusionPrior, Flow, PotentialFlow, StaticPrior
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.potentials import Potential

TINY = {"latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "steps": 4, "test_images": 8}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a tiny finished run, evaluated, and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    experiments.train("flow-factorized", "digits", "smoke", folder, seed=3, device="cpu", progress=False, **TINY)
    return folder, experiments.evaluate(folder, progress=False)


def test_metrics_file_has_the_promised_fields(finished):
    folder, metrics = finished
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    names = {"scale", "rotate", "hue"}
    for field in ("equivariance_error", "no_motion", "median_frame", "reconstruction_floor"):
        assert set(metrics[field]) == names
        assert all(math.isfinite(value) and value > 0 for value in metrics[field].values())
    assert (metrics["model"], metrics["data"], metrics["budget"], metrics["seed"]) == (
        "flow-factorized", "digits", "smoke", 3,
    )  # fmt: skip
    assert metrics["seconds"]["train"] > 0
    assert metrics["seconds"]["evaluate"] > 0
    assert {"torch", "numpy", "python"} <= set(metrics["versions"])
    assert metrics["device"].startswith("CPU")
    for name in ("prediction", "reconstruction"):
        assert metrics["log_likelihood"][name] < metrics["log_likelihood"]["ceiling"] == pytest.approx(-2161.3, abs=0.1)


def test_evaluation_says_which_data_were_measured(finished):
    _, metrics = finished
    assert metrics["data_set"] == "digits (test, 360 images), fixed start, 8 measured"


def test_evaluating_twice_gives_the_same_figures(finished):
    folder, metrics = finished
    again = experiments.evaluate(folder, progress=False, pictures=False)
    for field in ("equivariance_error", "median_frame", "reconstruction_floor", "log_likelihood"):
        assert again[field] == metrics[field]


def test_pictures_can_be_opened(finished):
    folder, _ = finished
    strip, animation = Image.open(folder / "filmstrip.png"), Image.open(folder / "traversal.gif")
    assert strip.width > strip.height > 200
    assert animation.n_frames == 16  # t = 0..8 and back


def test_config_records_what_was_run(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["latent"] == 16
    assert config["data_set"] == "digits (train, 1,257 images), fixed start"


def test_nothing_half_written_is_left(finished):
    folder, _ = finished
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "checkpoint.safetensors", "metrics.json", "filmstrip.png", "motion.gif", "traversal.gif",
    }  # fmt: skip


def test_a_loaded_run_predicts_as_the_trained_one(finished):
    folder, _ = finished
    one, other = experiments.load_run(folder).model, experiments.load_run(folder).model
    z = torch.randn(2, 16)
    assert torch.equal(one.decode(z).mean, other.decode(z).mean)
    assert not one.training


def test_a_second_run_in_the_same_folder_is_refused(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        experiments.train("vae", "digits", "smoke", folder, progress=False, **TINY)


def test_an_unfinished_run_is_not_evaluated(tmp_path, monkeypatch):
    def interrupted(model, sample, schedule, **options):
        experiments_fit(model, sample, type(schedule)(2), **options)

    experiments_fit = experiments.fit
    monkeypatch.setattr(experiments, "fit", interrupted)
    experiments.train("vae", "digits", "smoke", tmp_path / "run", progress=False, **TINY)
    with pytest.raises(ValueError, match=r"stopped at step 2 of 4: finish it with .*--resume"):
        experiments.load_run(tmp_path / "run")


def test_models_come_from_names_and_share_their_networks():
    settings = experiments.recipe("digits", "smoke")
    vae, flow = experiments.build_model("vae", settings), experiments.build_model("flow-factorized", settings)
    assert type(vae) is VAE
    assert type(flow) is FlowFactorizedVAE
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), flow.parameters(), strict=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: experiments.recipe("faces", "smoke"), "unknown data set 'faces'; known: digits, mnist"),
        (lambda: experiments.recipe("digits", "huge"), "unknown budget 'huge'; known: smoke, lecture, full"),
        (
            lambda: experiments.build_model("gan", experiments.recipe("digits", "smoke")),
            "unknown model 'gan'; known: vae, beta-vae, factor-vae",
        ),
        (
            lambda: experiments.recipe("digits", "smoke", "vae", gamma=1.0),
            "unknown setting of vae 'gamma'; known: steps, batch_size",
        ),
        (
            lambda: experiments.recipe("digits", "smoke", "weakly-supervised", labelled=2),
            "labelled is a share of the training images, from 0 to 1, got 2",
        ),
    ],
)
def test_unknown_names_list_the_known_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("model", experiments.MODELS)
def test_every_model_trains_resumes_and_is_measured(tmp_path, model, monkeypatch):
    options = {"device": "cpu", "progress": False}
    monkeypatch.setattr(experiments, "fit", partial(experiments.fit, save_every=2))
    whole = experiments.train(model, "digits", "smoke", tmp_path / "whole", **options, **TINY)
    metrics = experiments.evaluate(whole, progress=False, pictures=False)
    assert metrics["settings"]["own"] == experiments.MODELS[model]
    assert ("index_accuracy" in metrics) == (model == "weakly-supervised")

    original = experiments.fit

    def interrupted(model, sample, schedule, **fit_options):
        calls = iter(range(3))

        def until_the_power_fails(generator):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return sample(generator)

        return original(model, until_the_power_fails, schedule, **fit_options)

    monkeypatch.setattr(experiments, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.train(model, "digits", "smoke", tmp_path / "parts", **options, **TINY)
    monkeypatch.setattr(experiments, "fit", original)
    parts = experiments.train(model, "digits", "smoke", tmp_path / "parts", resume=True, **options, **TINY)
    one, other = (experiments.load_run(folder).model.state_dict() for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_models_start_with_the_same_networks():
    settings = {model: experiments.recipe("digits", "smoke", model) for model in experiments.MODELS}
    decoders = {model: experiments.build_model(model, settings[model]).decoder for model in settings}
    encoders = {model: experiments.build_model(model, settings[model]).encoder for model in settings}
    del encoders["topographic-vae"], decoders["topographic-vae"]
    for networks in (encoders, decoders):
        first = list(networks["vae"].parameters())
        for network in networks.values():
            assert all(torch.equal(a, b) for a, b in zip(first, network.parameters(), strict=True))


def test_only_the_plain_vae_has_its_own_kl_weight():
    betas = {model: experiments.recipe("digits", "lecture", model).beta for model in experiments.MODELS}
    assert betas.pop("vae") == 1.0
    assert set(betas.values()) == {0.03}


def test_options_reach_the_model():
    settings = experiments.recipe("digits", "smoke", "factor-vae", gamma=3.5, beta=0.7)
    model = experiments.build_model("factor-vae", settings)
    assert (model.gamma, model.beta) == (3.5, 0.7)


@pytest.mark.parametrize("model", ["flow-factorized", "weakly-supervised"])
def test_options_of_the_flow_reach_it(model):
    def build(**changes):
        return experiments.build_model(model, experiments.recipe("digits", "smoke", model, **changes))

    standard = build()
    assert type(standard.flow.field) is Potential
    assert type(standard.prior) is DiffusionPrior
    assert (type(standard.flow), standard.flow.substeps, standard.flow.method.order) == (PotentialFlow, 1, 1)
    assert standard.force is not None
    for field, kind in (("free", FreeField), ("divergence-free", DivergenceFreeField)):
        other = build(field=field, hamilton_jacobi=0.0)
        assert (type(other.flow), type(other.flow.field), other.force) == (Flow, kind, None)
    deep = build(depth=3, width=5).flow
    assert (type(deep), type(deep.field), deep.field.depth) == (PotentialFlow, DeepPotential, 3)
    assert deep.field.inner.shape == (3, 5, 32)
    assert build(force="none").force is None
    assert build(hamilton_jacobi=0.0).force is None
    assert type(build(prior="static").prior) is StaticPrior
    assert build(path_kl=0.25).path_kl == 0.25
    fine = build(method="rk4", substeps=4, density="ignored").flow
    assert (fine.substeps, fine.method.order) == (4, 4)
    z, k = torch.randn(2, 32), torch.tensor([0, 1])
    assert fine.rollout(z, k, 2).log_det.abs().sum() == 0
    assert standard.flow.rollout(z, k, 2).log_det.abs().min() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"field": "curly"}, "unknown field 'curly'; known: gradient, free, divergence-free"),
        ({"force": "strong"}, "unknown force 'strong'; known: learned, none"),
        ({"prior": "laplace"}, "unknown prior 'laplace'; known: diffusion, static"),
        ({"density": "hutchinson"}, "unknown density 'hutchinson'; known: exact, laplacian, ignored"),
        ({"method": "heun"}, "unknown method 'heun'; known: euler, midpoint, rk4"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"substeps": 1.5}, "substeps must be a whole number of at least 1, got 1.5"),
        ({"field": "free"}, "hamilton_jacobi = 10.0 needs a potential, which a free field does not have"),
        (
            {"field": "divergence-free", "hamilton_jacobi": 0, "depth": 2},
            "depth = 2 needs a potential, which a divergence-free field does not have: set depth to 1",
        ),
    ],
)
def test_options_of_the_flow_that_cannot_be_are_refused_by_the_recipe(changes, message):
    with pytest.raises(ValueError, match=message):
        experiments.recipe("digits", "smoke", **changes)


def test_a_model_without_a_potential_or_a_trained_prior_is_trained_reordered_and_evaluated(tmp_path, monkeypatch):
    """What reads the flow's potential or the prior's parameters has to do without them."""
    monkeypatch.setattr(experiments, "index_accuracy", lambda *a, **o: (1.0, torch.tensor([1, 2, 0])))
    options = {"field": "free", "hamilton_jacobi": 0.0, "prior": "static", **TINY}
    experiments.train("weakly-supervised", "digits", "smoke", tmp_path, device="cpu", progress=False, **options)
    metrics = experiments.evaluate(tmp_path, progress=False, pictures=False)
    assert metrics["diffusion"] == {"scale": 0.0, "rotate": 0.0, "hue": 0.0}
    assert 0 < metrics["smallest_eigenvalue"] < 1.1


@pytest.mark.parametrize("model", ["slow-vae", "topographic-vae"])
def test_models_that_ask_for_neighbouring_frames_get_them(model):
    settings = experiments.recipe("digits", "smoke", model)
    training = experiments.sequences("digits", "train", settings)
    built = experiments.build_model(model, settings)
    batch = experiments.sample_batch(built, training, settings, torch.Generator().manual_seed(0))
    assert batch.times[:, 1:].diff(dim=1).eq(1).all()


def test_a_share_of_the_training_images_is_labelled():
    settings = experiments.recipe("digits", "smoke", "weakly-supervised", labelled=0.01, naming=10.0)
    training = experiments.sequences("digits", "train", settings)
    assert training.labelled == 13
    batch = training.batch(torch.tensor([0, 12, 13, 500]), 1)
    assert batch.labelled.tolist() == [True, True, False, False]


def test_the_weakly_supervised_model_is_saved_with_its_indices_in_the_true_order(tmp_path, monkeypatch):
    """Training is a model that infers k rightly but under other names; what is loaded must use the true ones."""
    orders = iter([torch.tensor([1, 2, 0]), torch.tensor([0, 1, 2])])
    monkeypatch.setattr(experiments, "index_accuracy", lambda *a, **o: (1.0, next(orders)))
    options = {"device": "cpu", "progress": False, **TINY}
    seen = []
    original = experiments.fit
    monkeypatch.setattr(experiments, "fit", lambda model, *a, **o: (original(model, *a, **o), seen.append(
        model.flow.potential.inner.detach().clone())))  # fmt: skip
    run = experiments.load_run(experiments.train("weakly-supervised", "digits", "smoke", tmp_path, **options))
    assert torch.equal(run.model.flow.potential.inner, seen[0][[1, 2, 0]])


@pytest.mark.parametrize("model", experiments.MODELS)
def test_the_smoke_budget_runs_on_mnist(tmp_path, model, mnist_folder):
    folder = experiments.train(model, "mnist", "smoke", tmp_path / model, device="cpu", progress=False, **TINY)
    metrics = experiments.evaluate(folder, progress=False)
    assert metrics["data_set"].startswith("MNIST (test, 10,000 images)")
    # From red, the hues 20°, 40°, …, 160° lie at an L1 distance of 1/3, 2/3, …, 8/3 per unit of intensity: 12 in all.
    intensity = load_stills("mnist", "test").images[:8].sum().item() / 8
    assert metrics["no_motion"]["hue"] == pytest.approx(12 * intensity, rel=1e-5)
