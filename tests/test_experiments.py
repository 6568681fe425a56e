"""Runs by the names of a recipe, and on objects of one's own: training, resuming, loading and measuring."""

import json
import math
from functools import partial

import pytest
import torch
from PIL import Image
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn

from poflow_lite import experiments
from poflow_lite.datasets import DATASETS, ClipSequences, load_images, register
from poflow_lite.experiments import MODELS, build_model, evaluate, evaluate_run, load_run, recipe, train, train_recipe
from poflow_lite.fields import AutogradPotential, DivergenceFreeField, FreeField, Potential
from poflow_lite.flows import DiffusionPrior, StaticPrior, Trajectory
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.objectives import Terms, diagonal_normal, gaussian_kl, likelihood
from poflow_lite.operators import OPERATORS, fit_operators, with_operator
from poflow_lite.training import Schedule, step_generator

TINY = {"latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "steps": 4, "test_images": 8}
HOW = {"device": "cpu", "progress": False}


def weights_of(folder, **options):
    return load_run(folder, "cpu", **options).model.state_dict()


@pytest.fixture
def interrupt(monkeypatch):
    """Checkpoints every 2 steps; interrupt() makes the next training fail after them."""
    runs = experiments.runs
    often = partial(runs.fit, save_every=2)
    monkeypatch.setattr(runs, "fit", often)

    def after_two(model, sample, schedule, **options):
        calls = iter(range(3))

        def until_the_power_fails(draws):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return sample(draws)

        return often(model, until_the_power_fails, schedule, **options)

    def run(call):
        monkeypatch.setattr(runs, "fit", after_two)
        with pytest.raises(KeyboardInterrupt):
            call()
        monkeypatch.setattr(runs, "fit", often)

    return run


# --- by the names of a recipe -------------------------------------------------------------------------------------


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
        assert list(metrics[field]) == ["scale", "rotate", "hue"]
        assert all(math.isfinite(value) and value > 0 for value in metrics[field].values())
    expected = {"model": "flow-factorized", "data": "digits", "budget": "smoke", "seed": 3}
    assert {name: metrics[name] for name in expected} == expected
    assert min(metrics["seconds"]["train"], metrics["seconds"]["evaluate"]) > 0
    assert {"torch", "numpy", "python"} <= set(metrics["versions"])
    assert metrics["device"].startswith("CPU")
    assert metrics["data_set"] == "digits (test, 360 images), fixed start, 8 measured"
    for name in ("prediction", "reconstruction"):
        assert metrics["log_likelihood"][name] < metrics["log_likelihood"]["ceiling"] == pytest.approx(-2161.3, abs=0.1)
    assert list(metrics["diffusion"]) == ["scale", "rotate", "hue"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["latent"], config["data_set"]) == (16, "digits (train, 1,257 images), fixed start")


def test_a_run_leaves_pictures_and_nothing_half_written(finished):
    folder, _ = finished
    strip, animation = Image.open(folder / "filmstrip.png"), Image.open(folder / "traversal.gif")
    assert strip.width > strip.height > 200
    assert animation.n_frames == 16  # t = 0..8 and back
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "checkpoint.safetensors", "metrics.json", "filmstrip.png", "motion.gif", "traversal.gif",
    }  # fmt: skip


def test_evaluating_again_gives_the_same_figures_and_a_second_run_is_refused(finished):
    folder, metrics = finished
    again = evaluate_run(folder, progress=False, pictures=False)
    for field in ("equivariance_error", "median_frame", "reconstruction_floor", "log_likelihood"):
        assert again[field] == metrics[field]
    assert not load_run(folder / "checkpoint.safetensors", "cpu").model.training
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        train_recipe("vae", "digits", "smoke", folder, **HOW, **TINY)
    with pytest.raises(ValueError, match=r"belongs to another run \(different: .*model"):
        train_recipe("vae", "digits", "smoke", folder, resume=True, **HOW, **TINY)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_resumes_bit_exactly_and_is_measured(tmp_path, model, interrupt):
    start = partial(train_recipe, model, "digits", "smoke", **HOW, **TINY)
    whole, parts = start(tmp_path / "whole"), tmp_path / "parts"
    interrupt(lambda: start(parts))
    with pytest.raises(ValueError, match=r"stopped at step 2 of 4: finish it with .*--resume"):
        load_run(parts)
    one, other = weights_of(whole), weights_of(start(parts, resume=True))
    assert all(torch.equal(one[name], other[name]) for name in one)
    metrics = evaluate_run(whole, device="cpu", progress=False, pictures=False)
    assert metrics["settings"]["options"] == experiments.options_of(model)
    assert ("clustering_accuracy" in metrics) == (model == "weakly-supervised")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_a_step_on_scenes(model):
    settings = recipe("shapes3d-lite", "smoke", model, batch_size=2)
    training = experiments.sequences("shapes3d-lite", "train", settings)
    built = build_model(model, settings, training.image_shape, len(training.names)).train()
    batch = training.sample(2, 2, step_generator(0, 0, "data"), built.consecutive)
    loss = built.terms(batch, step_generator(0, 0, "noise")).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.encoder.parameters())
    kernels = [p for p in built.decoder.parameters() if p.ndim == 4 and min(p.shape[:2]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels) and kernels


def test_scenes_of_128_pixels_are_trained_on_and_measured(tmp_path):
    sizes = {"pixels": 128, "channels": (4, 4, 4, 8), "batch_size": 2, "steps": 1, "hidden": 8, "test_images": 1}
    train_recipe("flow-factorized", "falcor3d-lite", "smoke", tmp_path, likelihood_images=1, samples=2, **HOW, **sizes)
    metrics = evaluate_run(tmp_path, device="cpu", progress=False, pictures=False)
    assert len(metrics["no_motion"]) == 7
    assert metrics["log_likelihood"]["ceiling"] == pytest.approx(-1.5 * 128**2 * math.log(2 * math.pi))


def test_no_motion_on_mnist_is_what_the_hues_say(tmp_path):
    """From red, the hues 20°, 40°, …, 160° lie at an L1 distance of 1/3, …, 8/3 per unit of intensity: 12 in all."""
    train_recipe("vae", "mnist-10k", "smoke", tmp_path, likelihood_images=1, samples=2, **HOW, **TINY)
    metrics = evaluate_run(tmp_path, progress=False, pictures=False)
    intensity = load_images("mnist-10k", "test").images[:8].sum().item() / 8
    assert metrics["no_motion"]["hue"] == pytest.approx(12 * intensity, rel=1e-5)


def test_a_model_that_names_k_is_saved_with_its_indices_in_the_true_order(tmp_path, monkeypatch):
    """Training is a model that infers k rightly but under other names; what is loaded must use the true ones."""
    runs, seen = experiments.runs, []
    monkeypatch.setattr(runs, "clustering_accuracy", lambda *a, **o: (1.0, torch.tensor([1, 2, 0])))
    original = runs.fit
    monkeypatch.setattr(runs, "fit", lambda model, *a, **o: (original(model, *a, **o), seen.append(
        model.flow.field.inner.detach().clone())))  # fmt: skip
    options = {"field": "free", "hamilton_jacobi": 0.0, "prior": "static", **TINY}  # no potential, no force, no D_k
    train_recipe("weakly-supervised", "digits", "smoke", tmp_path, **HOW, **options)
    assert torch.equal(weights_of(tmp_path)["flow.field.inner"], seen[0][[1, 2, 0]])
    metrics = evaluate_run(tmp_path, device="cpu", progress=False, pictures=False)
    assert metrics["diffusion"] == {"scale": 0.0, "rotate": 0.0, "hue": 0.0}
    assert 0 < metrics["smallest_eigenvalue"] < 1.1


# --- recipes ------------------------------------------------------------------------------------------------------


def build(model="flow-factorized", **changes):
    return build_model(model, recipe("digits", "smoke", model, **changes))


def test_models_of_one_recipe_start_with_the_same_networks_and_kl_weight():
    models = {name: build(name) for name in MODELS if name != "topographic-vae"}
    assert type(models["vae"]) is VAE
    assert type(models["flow-factorized"]) is FlowFactorizedVAE
    for model in models.values():
        for part in ("encoder", "decoder"):
            pairs = zip(getattr(models["vae"], part).parameters(), getattr(model, part).parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    betas = {name: recipe("digits", "lecture", name).beta for name in MODELS}
    assert betas.pop("vae") == 1.0
    assert set(betas.values()) == {0.03}


@pytest.mark.parametrize("model", ["flow-factorized", "weakly-supervised"])
def test_options_of_the_flow_reach_it(model):
    of = partial(build, model)
    standard, z, k = of(), torch.randn(2, 32), torch.tensor([0, 1])
    assert (type(standard.flow.field), type(standard.prior)) == (Potential, DiffusionPrior)
    assert (standard.flow.substeps, standard.flow.method.order) == (1, 1)
    assert standard.force is not None
    for field, kind in (("free", FreeField), ("divergence-free", DivergenceFreeField)):
        other = of(field=field, hamilton_jacobi=0.0)
        assert (type(other.flow.field), other.force) == (kind, None)
    deep = of(depth=3, width=5).flow.field
    assert type(deep) is AutogradPotential
    assert [weight.shape for weight in deep.function.weight] == [(3, 5, 5)] * 2
    assert of(force="none").force is None
    assert type(of(prior="static").prior) is StaticPrior
    assert of(path_kl=0.25).path_kl == 0.25
    fine = of(method="rk4", substeps=4, log_det="none").flow
    assert (fine.substeps, fine.method.order) == (4, 4)
    assert not fine.rollout(z, k, range(3)).log_det.any()
    assert standard.flow.rollout(z, k, range(3)).log_det.all()


def test_options_reach_the_model_and_a_share_of_the_images_is_labelled():
    model = build("factor-vae", gamma=3.5, beta=0.7)
    assert (model.gamma, model.beta) == (3.5, 0.7)
    settings = recipe("digits", "smoke", "weakly-supervised", labelled=0.01, classification=10.0)
    training = experiments.sequences("digits", "train", settings)
    assert training.labelled == 13
    assert training.batch(torch.tensor([0, 12, 13, 500]), 1).labelled.tolist() == [True, True, False, False]


REFUSED = [
    (lambda: recipe("faces", "smoke"), "unknown data set 'faces'; known: digits, mnist"),
    (lambda: recipe("digits", "huge"), "unknown budget 'huge'; known: smoke, lecture, full"),
    (lambda: recipe("digits", "smoke", "gan"), "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
    (lambda: build_model("gan", recipe("digits", "smoke")), "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
    (lambda: recipe("digits", "smoke", "vae", gamma=1), "unknown setting of vae 'gamma'; known: steps, batch_size"),
    (lambda: recipe("digits", "smoke", labelled=2), "labelled is a share of the training images, from 0 to 1, got 2"),
    (lambda: recipe("digits", "smoke", share=0), "share is a share of the training images, above 0 .*, got 0"),
    (lambda: recipe("digits", "smoke", precision="half"), "unknown precision 'half'; known: float32, bfloat16"),
    (
        lambda: build_model("factor-vae", recipe("digits", "lecture")),
        "unknown option 'hamilton_jacobi' of factor-vae; known: gamma. Make its recipe by recipe",
    ),
    (lambda: build(field="curly"), "unknown field 'curly'; known: gradient, free, divergence-free"),
    (lambda: build(force="strong"), "unknown force 'strong'; known: learned, none"),
    (lambda: build(prior="laplace"), "unknown prior 'laplace'; known: diffusion, static"),
    (lambda: build(log_det="laplacian"), "unknown log_det 'laplacian'; known: exact, trace, hutchinson, none"),
    (lambda: build(method="heun"), "unknown method 'heun'; known: euler, midpoint, rk4"),
    (lambda: build(depth=0), "depth must be a whole number of at least 1, got 0"),
    (lambda: build(substeps=1.5), "substeps must be a whole number of at least 1, got 1.5"),
    (lambda: build(field="free"), "hamilton_jacobi = 10.0 needs a potential, which a free field does not have"),
    (lambda: build(field="free", hamilton_jacobi=0, depth=2), "depth = 2 needs a potential, .*: set depth to 1"),
    (lambda: build("factor-vae", gamma=-1.0), "gamma must be a finite number of at least 0, got -1.0"),
    (lambda: experiments.register_model("vae", VAE), "there is a model 'vae' already: choose another name"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_a_recipe_cannot_be_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


# --- on objects of one's own --------------------------------------------------------------------------------------


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
        log_det = (-2 * self.rate * times.diff()).expand(len(z), -1)
        return Trajectory(path, log_det, path.diff(dim=1), y, times)

    def log_prior(self, z, t, y):
        return diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)

    def terms(self, batch, generator=None):
        posterior = self.encode(batch.frames[:, 0])
        path = self.rollout(posterior.mean, batch.k, range(batch.horizon + 1)).z
        seen = self.decode(path.take_along_dim(batch.times[..., None], 1)).log_prob(batch.frames)
        return Terms(seen @ batch.frame_weights, gaussian_kl(posterior.mean, posterior.base_dist.scale))


def test_a_users_model_trains_resumes_loads_and_is_measured_on_a_users_sequences(tmp_path, make_fading, interrupt):
    images = torch.rand(9, *SHAPE, generator=generator())
    training, held_out = make_fading(images[:6], name="mine"), make_fading(images[6:])
    first, again, fresh = (Fading() for _ in range(3))
    again.load_state_dict(first.state_dict())
    start = partial(train, training=training, schedule=Schedule(4, 0.05), batch_size=5, seed=2, **HOW)
    whole, parts = start(first, out=tmp_path / "whole"), tmp_path / "parts"
    interrupt(lambda: start(again, out=parts))
    start(Fading(), out=parts, resume=True)
    one, other = (weights_of(folder, model=Fading()) for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    run = load_run(whole, "cpu", model=fresh)
    assert run.model is fresh
    assert (run.settings, run.config["model"], run.config["data_set"]) == (None, "Fading", "mine")
    assert run.config["names"] == ["halve", "still"]
    with pytest.raises(ValueError, match=r"by objects of your own \(.*latent.* missing\): train again, or pass model="):
        load_run(whole)
    with pytest.raises(ValueError, match="holds another model than VAE"):
        load_run(whole, model=VAE(*encoder_and_decoder()))
    with pytest.raises(ValueError, match=r"belongs to another run \(different: learning_rate\)"):
        start(Fading(), schedule=Schedule(4, 0.01), out=whole, resume=True)
    halving = make_fading(images[6:], names=("halve",))
    sizes = {"likelihood_images": 2, "samples": 3, "progress": False}
    metrics = {"rate": lambda model, held_out: [model.rate.item(), len(held_out)]}
    found = evaluate(fresh, halving, make_fading(images[:6], names=("halve",)), metrics=metrics, **sizes)
    assert found["rate"] == [one["rate"].item(), 3]
    ratio = found["equivariance_error"]["halve"] / found["no_motion"]["halve"]
    assert found["ratio_to_no_motion"] == {"halve": pytest.approx(ratio)}
    assert list(fit_operators(fresh, training)) == list(OPERATORS)
    overwritten = start(Fading(), out=whole, schedule=Schedule(1), overwrite=True)
    assert load_run(overwritten, "cpu", model=Fading()).config["steps"] == 1


@pytest.fixture
def catalogue():
    """What a test registers is gone after it."""
    registries = MODELS, DATASETS
    before = [dict(registry) for registry in registries]
    yield
    for registry, was in zip(registries, before, strict=True):
        registry.clear()
        registry.update(was)


def videos(split, **settings):
    """Labelled clips, two that rise for each that falls."""
    start, change = torch.rand(2, 9, generator=generator(len(split)))
    rises = torch.arange(9) % 3 > 0
    pixels = 0.5 * start[:, None] + torch.where(rises, 0.1, -0.1)[:, None] * change[:, None] * torch.arange(4)
    return ClipSequences(
        pixels.clamp(0, 1)[..., None, None, None].expand(-1, -1, *SHAPE), rises.long(), ("fall", "rise")
    )


@pytest.mark.parametrize("model", ["mine", "flow-factorized", "weakly-supervised"])
def test_registered_clips_and_models_go_from_training_by_name_to_operators(tmp_path, catalogue, model):
    def mine(r, shape, transformations, *, rate=0.25):
        return Fading(rate)

    register("videos", videos)
    experiments.register_model("mine", mine)
    assert experiments.options_of("mine") == {"rate": 0.25}
    sizes = {"steps": 3, "batch_size": 4, "horizon": 3, "likelihood_images": 2, "samples": 3, "hidden": 16}
    own = {"rate": 0.75} if model == "mine" else {}
    train_recipe(model, "videos", "smoke", tmp_path, **HOW, **sizes, **own)
    run = load_run(tmp_path, "cpu")
    assert (run.settings.options.get("rate"), run.config["names"]) == (own.get("rate"), ["fall", "rise"])
    metrics = evaluate_run(tmp_path, device="cpu", progress=False, pictures=False)
    clips, training = videos("test"), videos("train")
    for k, name in enumerate(clips.names):
        own = clips.clips[clips.of(k)]
        assert metrics["no_motion"][name] == pytest.approx((own[:, 1:] - own[:, :1]).abs().sum().item() / len(own))
    for name, operator in fit_operators(run.model, training).items():
        found = evaluate(with_operator(run.model, operator), clips, training, likelihood_images=1, samples=2)
        assert found["no_motion"] == metrics["no_motion"], name
    experiments.save_pictures(run.model, clips, tmp_path, "clips")
