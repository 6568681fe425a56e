from lib import *
from poflow_lite.course.notebooks import setup_cell

md(r'''
# 11 · Ablations and cost

## In one minute

**Question.** The model of lesson 07 has a dozen parts: a penalty, a prior, a density, a kind of field, a few weights. Which of them does it need? And what does each cost in seconds and memory?

**Answer.** Take one part out, train again, and compare in pairs, with an interval. Most changes move the error by a few per cent or less, and some rows cannot say even that (Figure 1, left). One part is dear: the determinant of the density, which grows steeply with the latent dimension $d$. A bound on the whole film needs none (Figure 1, right).

**You will** compute paired differences and their intervals; run an ablation; make false discoveries out of nothing, one way after another, and avoid each; show equality by two one-sided tests; read a recorded ablation; derive the cost of a step, measure it, and read what seconds of training buy.

**Before this** [05](05-optimal-transport.ipynb) (OT gap, Hamilton–Jacobi penalty), [07](07-flow-factorized-vae.ipynb) (the model, its two readings), [09](09-experiments.ipynb) (error, operators, likelihoods).

**Notation** $n$ seeds · $\delta_s$ difference of two variants at seed $s$, $\bar\delta$ its mean, $\sigma$ its standard deviation over seeds ($n-1$) · $d$ latent dimension, $T$ frames after the first, $K$ transformations, $B$ films a step, $S$ frames decoded of each, $m$ hidden units, $f$ features of time · $\lambda_{HJ}$ weight of the penalty, $\beta$ of the KL terms · *error*: equivariance error ÷ that of no motion, mean over the transformations. Likelihoods are nats a frame. **Standard**: the flow-factorized VAE with its recipe for digits.

**Run time** under 140 s on two idle cores, more than half of it in session 1.

**Needs** no network: scikit-learn's digits and all records are inside the package.
''')
code(setup_cell())
code(r'''
import itertools
import math
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean, stdev, variance
from time import perf_counter

import torch
from scipy.stats import t as student
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite import experiments, plotting
from poflow_lite.course import checks, recorded
from poflow_lite.metrics import l1, persistence, predict
from poflow_lite.studies import cost, cost_measures
from poflow_lite.studies.ablation_tables import (
    chance,
    figures,
    paired_difference,
    summarise,
)
''')
code(r'''
RECORDS = ("digits-ablations.json", "digits-ablations-sizes.json")
LINES = {}  # (group, variant) ↦ one line of the record, over all its seeds
for name in RECORDS:  # the second record has one seed; what the first has goes first
    for line in summarise(recorded(name)):
        LINES.setdefault((line.group, line.variant), line)
STANDARD = LINES["standard", "standard"]
KS = list(STANDARD.cells[0]["no_motion"])


def values(line, measure):  # one number a seed
    found = [figures(cell)[measure] for cell in line.cells]
    return [value for value in found if value is not None]


def half(difference, n, level=0.95):  # half the width of the interval of its mean
    if difference.spread is None:
        return math.inf
    return student.ppf(0.5 + level / 2, n - 1) * difference.spread / math.sqrt(n)


def name_of(line):
    return ": ".join(dict.fromkeys((line.group, line.variant)))


for name in RECORDS:
    record = recorded(name)
    print(record["cells"][0]["data_set"], "| seeds", record["settings"]["seeds"])
''', hide=True)
code(r'''
def show(fig, title, alt):
    fig.suptitle(title, fontsize=12)
    plotting.show(fig, alt)


def look(i, **style):
    return {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i], "ms": 6, **style}


def interval(axis, row, line, i):  # change of error with its interval; one seed: hollow
    change = line.differences["error"]
    reach, hollow = half(change, len(line.cells)), change.spread is None
    style = look(i, linestyle="none", mfc="white" if hollow else plotting.COLORS[i])
    bar = None if hollow else 100 * reach
    if hollow:
        style |= {"marker": "o", "color": "0.35"}
    axis.errorbar(100 * change.mean, row, xerr=bar, capsize=3, **style)


def label_of(line):
    return f"{name_of(line)}   {mean(values(line, 'error')):.3f}"


def percent_axis(axis, lines):
    axis.axvline(0, color="0.4", ls="--", lw=1)
    axis.axvspan(-5, 5, color="0.93", zorder=-2)
    axis.set(yticks=range(len(lines)), yticklabels=[label_of(line) for line in lines])
    axis.set(ylim=(len(lines) - 0.5, -0.5), xlabel="change of error, % of its reference")


places = [("hamilton-jacobi", "λ_HJ = 0"), ("force", "no force"), ("log_det", "none")]
places += [("prior", "no path KL"), ("field", "free"), ("consistency", "gradient")]
chosen = [LINES[place] for place in (*places, ("depth", "2 layers"))]
priced = recorded("digits-cost.json")
sized = next(c for c in priced["cells"] if (c["kind"], c.get("axis")) == ("time", "latent"))
fig, (left, right) = plotting.figure(10, 3.3, 1, 2, width_ratios=(1.15, 1))
for row, line in enumerate(chosen):
    interval(left, row, line, 0 if line.differences["error"].spread else 7)
percent_axis(left, chosen)
for model, i in {"free-flow": 1, "flow-factorized": 0, "vae": 2}.items():
    if model in sized["curves"]:
        times = sized["curves"][model]["measured"]
        right.plot(sized["values"], times, label=f"{model}: × {times[-1] / times[0]:.1f}", **look(i))
right.set(xscale="log", yscale="log", xlabel="latent dimension d", ylabel="ms a step")
right.set_xticks(sized["values"], map(str, sized["values"]))
right.set_yticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
right.minorticks_off()
right.legend(frameon=False, fontsize=9)
left.text(0.6, len(chosen) - 1, "one seed: no interval", va="center", fontsize=9)
worst = max(abs(line.differences["error"].mean) for line in chosen)
ratio = sized["curves"]["flow-factorized"]["measured"]
steep = ratio[-1] / ratio[0]
title = f"Seven changes move the error by {worst:.0%} at most; the determinant costs × {steep:.0f}"
alt = f"Left: seven changes of error, {worst:.0%} at most, one hollow. Right: time of a step over d"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 1.** Recorded, digits. Left: change of the error when one thing of the standard is changed; bars are 95 % intervals over seeds. The number beside a name is the absolute error. The reference is the standard; for *field* it is the gradient without penalty. Hollow, without a bar: one seed, no interval. Grey: ± 5 %. Right: time of a training step over $d$, and its growth from $d=32$ to 256.
''')
md(r'''
# Session 1 · Ablations: which parts are needed?

## 1 · How a difference misleads

**Question.** A variant has a smaller error than the standard. Did the part that was removed do harm? The answer needs to know where the difference may come from, other than the part.

| false effect | how it arises | what prevents it | shown in |
|---|---|---|---|
| luck of a run | one seed | several seeds, in pairs, with an interval | 2, 3 |
| luck of many | thirty comparisons, the best one told | count them, correct for them | 5 |
| a choice on test images | the best of many settings, on the images that judge it | choose on validation images | 5 |
| unequal effort | one model tuned, the other not | the same number of trials | 5 |
| two changes at once | a row that differs in three settings | a chain of single changes | 7 |
| "not significant, so equal" | an interval that is merely wide | two one-sided tests | 6 |

The recorded study of section 7 has one limit of this kind itself. All variants keep the settings that were tuned, on validation images, for the standard. A part whose removal asks for another learning rate looks more important than it is.

## 2 · Differences in pairs

**Question.** Two runs with the same seed start from the same encoder and decoder and see the same images in the same order. What does that buy?

Let $a_s$ and $b_s$ be the errors of two variants at seed $s$. Split the luck of a run into a part $c_s$ that both share and a part of its own: $a_s=\mu_a+c_s+e_s$ and $b_s=\mu_b+c_s+e'_s$. In the difference $\delta_s=a_s-b_s$ the seed's part cancels. With equal variances $\sigma_1^2$ and correlation $\rho$ of the two errors,

$$\operatorname{Var}\delta_s=\operatorname{Var}a+\operatorname{Var}b-2\operatorname{Cov}(a,b)=2\sigma_1^2(1-\rho).$$

So subtract first, seed by seed, and average afterwards.

**Predict first.** Shared luck of 3 %, own luck of 1 %, two variants that are equal. How far apart are their means over three seeds, typically: with the same seeds, and with different ones?

<details><summary>Answer</summary>Same seeds: √2 · 1 % / √3 = 0.8 %. Other seeds: √2 · √10 % / √3 = 2.6 %.</details>
''')
code(r'''
seeded = torch.Generator().manual_seed(0)
# 20,000 studies of three seeds, in units of 1 %
common, own, other = torch.randn(3, 20_000, 3, generator=seeded)
a, b = 3 * common + own, 3 * common + other
KINDS = {"same seeds": a - b, "other seeds": a - b.roll(1, 0)}  # the b of another study
for kind, delta in KINDS.items():
    single, three = delta.std(), delta.mean(1).std()
    print(f"{kind:<12} one difference ± {single:.1f} %, mean of three ± {three:.1f} %")
for n in (3, 5, 10):  # pairs have n - 1 degrees of freedom, two separate groups 2n - 2
    paired, separate = (student.ppf(0.975, freedom) for freedom in (n - 1, 2 * n - 2))
    least = 1 - (separate / paired) ** 2
    print(f"{n:2d} seeds: pairs give the narrower interval if ρ > {least:.2f}")
''', check=True)
code(r'''
fig, (left, right) = plotting.figure(9.5, 3.0, 1, 2)
for i, (kind, delta) in enumerate(KINDS.items()):
    style = {"histtype": "step", "ls": ["-", "--"][i], "lw": 1.8, "color": plotting.COLORS[i]}
    left.hist(delta.mean(1), 80, range=(-9, 9), label=kind, **style)
left.axvline(0, color="0.4", ls=":", lw=1)
left.set(xlabel="mean difference of three seeds, %", yticks=[], ylabel="studies")
rho = torch.linspace(0, 0.98, 99)
for i, n in enumerate((3, 5, 10), start=2):
    price = student.ppf(0.975, n - 1) / student.ppf(0.975, 2 * n - 2)
    right.plot(rho, price * (1 - rho).sqrt(), label=f"{n} seeds", markevery=16, **look(i))
right.axhline(1, color="0.4", ls="--", lw=1)
right.set(xlabel="correlation ρ of the two errors", ylabel="half-width, pairs ÷ separate", ylim=(0, 1.7))
for axis in (left, right):
    axis.legend(frameon=False, fontsize=9)
alt = "Left: same seeds, narrow histogram; others, wide. Right: at small correlation pairs widen the interval"
show(fig, "Pairs remove the luck that is shared; where none is shared they cost a little", alt)
''', hide=True)
md(r'''
**Figure 2.** Left: 20,000 simulated studies of two equal variants. Right: half-width of the 95 % interval of a paired comparison, divided by that of two separate groups.

**Finding.** With shared luck of 3 % and own luck of 1 % the same seeds shrink the error of the mean from 2.6 % to 0.8 %. But pairs are not free. Three pairs have two degrees of freedom, two groups of three have four. Pairs pay from ρ = 0.58 upwards with three seeds, from 0.14 with ten.

## 3 · An interval, always

**Question.** When is $\bar\delta$ more than luck? If the true difference is 0 and the luck normal, $t=\bar\delta\sqrt n/\sigma$ follows Student's distribution with $n-1$ degrees of freedom. So a 95 % interval for the true difference is

$$\bar\delta\pm t_{0.975,\,n-1}\,\frac{\sigma}{\sqrt n}.$$

A one-seed row has no $\sigma$. Its interval is infinite. It must not look certain.

Some tables of this course print a blunter mark: bold where $|\bar\delta|>2\sigma$, so where $|t|>2\sqrt n$. For $n=3$ the density of $t$ is $(2+t^2)^{-3/2}$. Its integral from 0 to $c$ is $\tfrac12c/\sqrt{2+c^2}$. With $c^2=12$, equal variants are marked with probability $1-\sqrt{12/14}=7.4\,\%$.
''')
code(r'''
for n in (1, 2, 3, 5, 10):
    wide = student.ppf(0.975, n - 1) / math.sqrt(n) if n > 1 else math.inf
    marked = f"equals are marked in {chance(n):.2%}" if n > 1 else "nothing can be said"
    print(f"{n:2d} seeds: interval ± {wide:5.2f} σ; {marked}")
centre, sigma = (a - b).mean(1).abs(), (a - b).std(1)  # the equal variants of section 2
hits = (centre < student.ppf(0.975, 2) * sigma / math.sqrt(3)).double().mean()
false = (centre > 2 * sigma).double().mean()
print(f"20,000 studies: {hits:.1%} of intervals hold the truth, {false:.1%} are marked")
''', check=True)
code(r'''
shown = [LINES[p] for p in (("log_det", "none"), ("field", "free"), ("depth", "2 layers"))]
fig, axes = plotting.figure(9.5, 2.2, 1, 2, sharey=True, sharex=True)
for row, line in enumerate(shown):
    change = line.differences["error"]
    deviation = None if change.spread is None else 100 * change.spread
    axes[0].errorbar(100 * change.mean, row, xerr=deviation, ls="none", capsize=3, **look(0))
    interval(axes[1], row, line, 0)
    if change.spread is None:
        axes[1].text(100 * change.mean + 0.4, row, "one seed: no interval", va="center", fontsize=9)
for axis, title in zip(axes, ("as tables often print it: ± σ", "as it should be read: 95 %"), strict=True):
    percent_axis(axis, shown)
    axis.set_title(title, fontsize=10)
    axis.set_xlim(-9, 9)
alt = "Three rows twice: with standard deviations, the one-seed row has no bar; with intervals, it is hollow"
show(fig, "The row that is known least looks most certain, unless it is drawn hollow", alt)
''', hide=True)
md(r'''
**Figure 3.** Three rows of the record, drawn twice. Left: ± one standard deviation. Right: the 95 % interval.

**Finding.** With three seeds the interval is 2.48 times the standard deviation, with two 8.98 times, with ten 0.72 times. The mark $|\bar\delta|>2\sigma$ errs in 7.4 % of comparisons of equals with three seeds and in 21.6 % with two. From here on every difference has its interval and its absolute value beside it. One-seed rows are hollow and have no bar.

## 4 · An ablation, live

**Question.** The standard has a potential and a penalty on its paths. What happens without the penalty? And with a free field instead of a gradient? A free field has no potential, so it cannot have the penalty. Going from the standard to the free field in one row would be *two* changes. So there are three variants and two single steps: standard → no penalty → free field. Each is trained with four seeds on a reduced problem: digits, $T=4$, small networks, 200 steps.
''')
code(r'''
SMALL = {"horizon": 4, "latent": 16, "network": "patches", "channels": (24,)}
SMALL |= {"hidden": 96, "width": 32, "batch_size": 32}
SMALL |= {"steps": 200, "learning_rate": 0.01}
LIVE = {"standard": {}, "no penalty": {"hamilton_jacobi": 0.0}}
LIVE["free field"] = {"hamilton_jacobi": 0.0, "field": "free"}
test_set = experiments.recipe("digits", "lecture", **SMALL)
held_out = experiments.sequences("digits", "test", test_set).first(300)
SEEDS, models = range(4), {}
with tempfile.TemporaryDirectory() as work:
    for name, seed in itertools.product(LIVE, SEEDS):
        options = {"seed": seed, "device": "cpu", "progress": False}
        recipe = "flow-factorized", "digits", "lecture", Path(work) / f"{name} {seed}"
        run = experiments.train_recipe(*recipe, **options, **SMALL, **LIVE[name])
        models[name, seed] = experiments.load_run(run, "cpu").model
''')
code(r'''
fresh = []  # as they start
for name in ("standard", "free field"):
    recipe = experiments.recipe("digits", "lecture", **SMALL, **LIVE[name])
    fresh.append(experiments.build_model("flow-factorized", recipe))
for part in ("encoder", "decoder", "flow"):
    pair = [list(getattr(model, part).parameters()) for model in fresh]
    alike = len(pair[0]) == len(pair[1]) and all(map(torch.equal, *pair))
    print(f"standard and free field, seed 0, before training: same {part}: {alike}")
''', check=True)
code(r'''
@torch.no_grad()
def image_errors(model):  # error ÷ no motion of each image, mean over k: (images,)
    parts = []
    for k in range(len(KS)):
        films = held_out.batch(torch.arange(len(held_out)), k)
        guesses = predict(model, films), persistence(films)  # its own, and no motion
        wrong, still = (l1(guess, films.frames)[:, 1:].sum(1) for guess in guesses)
        parts.append(wrong / still.mean())
    return torch.stack(parts).mean(0)


ERRORS = {}  # variant ↦ (seeds, images)
for name in LIVE:
    ERRORS[name] = torch.stack([image_errors(models[name, s]) for s in SEEDS])
    by_seed = " ".join(f"{x:.3f}" for x in ERRORS[name].mean(1))
    print(f"{name:<12} error by seed {by_seed}   mean {ERRORS[name].mean():.3f}")
''')
md(r'''
There are two kinds of luck: that of the training, which a seed decides, and that of the images that happen to be measured. Both can be paired. The same image is hard for both networks, so it cancels in the difference.
''')
code(r'''
def reach(spread, n, freedom):
    return student.ppf(0.975, freedom) * spread / math.sqrt(n)


images = (ERRORS["free field"] - ERRORS["no penalty"]) / ERRORS["no penalty"].mean()
runs = images.mean(1)  # the relative change at each seed
wide = reach(runs.std(), 4, 3)
print(f"gradient → free, 4 pairs of runs: {runs.mean():+.1%} ± {wide:.1%}")
for s, delta in enumerate(images):
    wide = reach(delta.std(), 300, 299)
    print(f"300 pairs of images, seed {s}: {delta.mean():+.1%} ± {wide:.1%}")
''')
code(r'''
def kept(pairs):  # Var(a - b) ÷ (Var a + Var b), pooled: 1 where pairs share nothing
    pairs = [(list(x), list(y)) for x, y in pairs]
    apart = sum(variance([x - y for x, y in zip(*pair, strict=True)]) for pair in pairs)
    return apart / sum(variance(x) + variance(y) for x, y in pairs)


STEPS = {"penalty removed": ("no penalty", "standard")}
STEPS["gradient → free"] = "free field", "no penalty"
for step, (new, old) in STEPS.items():
    change = (ERRORS[new] - ERRORS[old]).mean(1) / ERRORS[old].mean()
    apart = (ERRORS[new].mean(1).var() + ERRORS[old].mean(1).var()).sqrt() / ERRORS[old].mean()
    unpaired = reach(apart, 4, 6)
    wide = f"± {reach(change.std(), 4, 3):.1%}, not paired ± {unpaired:.1%}"
    print(f"{step}: {change.mean():+.1%} {wide}")
live = kept([ERRORS[n].mean(1).tolist() for n in step] for step in STEPS.values())
many = [line for line in LINES.values() if len(line.cells) > 1]
whole = kept((values(line, "error"), values(STANDARD, "error")) for line in many[1:])
scatter = mean(stdev(values(line, "error")) / mean(values(line, "error")) for line in many)
print(f"variance kept by pairs of runs: live {live:.2f}, record {whole:.2f}")
print(f"spread over seeds in the record: {scatter:.1%} of the error, mean of {len(many)} rows")

bars = {"4 + 4 runs, not paired": (change.mean(), unpaired)}
bars["4 pairs of runs"] = runs.mean(), reach(runs.std(), 4, 3)
for s, delta in enumerate(images):
    bars[f"300 pairs of images, seed {s}"] = delta.mean(), reach(delta.std(), 300, 299)
fig, (left, right) = plotting.figure(10, 3.1, 1, 2, width_ratios=(1, 1.3))
for s in SEEDS:
    left.plot([ERRORS[name][s].mean() for name in LIVE], label=f"seed {s}", lw=1, **look(s + 2, mfc="white"))
left.plot([found.mean() for found in ERRORS.values()], label="mean", **look(0, lw=2.5))
left.set(ylabel="error ÷ no motion", ylim=(0.62, 1.02))
left.axhline(1, color="black", ls="--", lw=1)
left.text(0, 0.975, "no motion", fontsize=9)
left.set_xticks(range(3), list(LIVE))
left.legend(frameon=False, fontsize=8, ncols=2, loc="upper right", bbox_to_anchor=(1, 0.92))
for row, (centre, wide) in enumerate(bars.values()):
    right.errorbar(100 * centre, row, xerr=100 * wide, **look(0 if row < 2 else 2, ls="none", capsize=3))
right.axvline(0, color="0.4", ls="--", lw=1)
right.set(yticks=range(6), yticklabels=list(bars), ylim=(5.5, -0.5))
right.set(xlabel="change of error, gradient → free, %; 95 % interval")
usual = ERRORS["standard"].mean()
alt = f"Left: errors of four seeds over three variants, near {usual:.2f}. Right: six intervals of one change"
show(fig, "Live: every seed gains from the free field, but not by the same amount", alt)
''', hide=True)
md(r'''
**Figure 4.** Live, 300 test images. Left: errors of single runs (hollow) and their means; the axis does not start at 0. Right: one change, six intervals.

**Finding.** «LIVE»

**What an interval speaks about.** Pairs of images say whether *these two networks* differ on other images. Pairs of runs say whether the two *recipes* differ. A claim about a method needs runs. Many images with one seed give narrow intervals that disagree with each other.
''')
md(r'''
## 5 · Break it: effects from nothing

### Many comparisons, one standard

One seed, thirty variants, all equal to the standard in truth. A run's luck is 1 %.

**Predict first.** How many of the thirty removals "improve" the model? Fifteen, give or take a few?
''')
code(r'''
def holm(p):  # which of m p-values survive at 5 % for all together
    ordered, place = p.sort(-1)
    passed = ordered <= 0.05 / (p.shape[-1] - torch.arange(p.shape[-1]))
    passed = passed.cumprod(-1).bool()  # stop at the first that fails
    return torch.zeros_like(passed).scatter(-1, place, passed)

''')
code(r'''
luck = torch.randn(20_000, 31, 3, generator=torch.Generator().manual_seed(1))
delta = luck[:, 1:] - luck[:, :1]  # thirty, all against the same runs of the standard
shared = (delta[..., 0] < 0).sum(1).double()
single = (luck[:, 1:, 0] < luck[:, 1:, 2]).sum(1).double()
best = delta[..., 0].amin(1)
print(f"'improvements' of 30, one seed: {shared.mean():.0f} ± {shared.std():.1f}")
print(f"each against a run of its own: {single.mean():.0f} ± {single.std():.1f}")
print(f"the best of 30: {best.mean():+.1f} % on average; run again with new seeds: 0 %")
''', check=True)
code(r'''
t = delta.mean(2).abs() * 3**0.5 / delta.std(2)
p = 1 - t / (2 + t**2).sqrt()  # two-sided, two degrees of freedom: section 3
rules = {"|mean| > 2σ": t > 12**0.5, "p < 5 %": p < 0.05, "Holm": holm(p)}
for rule, found in rules.items():
    some, count = found.any(1).double().mean(), found.sum(1).double().mean()
    print(f"{rule:<12} {count:.2f} of 30 found, some in {some:.0%} of studies")
''', check=True)
code(r'''
fig, (left, right) = plotting.figure(9.5, 3.0, 1, 2)
sets = {"one standard run for all": shared, "a standard run for each": single}
for i, (label, counts) in enumerate(sets.items()):
    style = {"histtype": "step", "ls": ["-", "--"][i], "lw": 1.8, "color": plotting.COLORS[i]}
    left.hist(counts, 31, range=(-0.5, 30.5), label=label, **style)
left.set(xlabel='"improvements" among 30 equal variants', ylabel="of 20,000 studies", ylim=(0, 3900))
sets = {"one seed": best, "mean of three seeds": delta.mean(2).amin(1)}
for i, (label, found) in enumerate(sets.items(), start=2):
    style = {"histtype": "step", "ls": ["-", "--"][i - 2], "lw": 1.8, "color": plotting.COLORS[i]}
    right.hist(found, 60, label=label, **style)
right.axvline(0, color="0.4", ls="--", lw=1)
right.set(xlabel="the best of 30 against the standard, %", ylim=(0, 1700))
for axis in (left, right):
    axis.legend(frameon=False, fontsize=9, loc="upper left")
alt = "Left: counts even from 0 to 30 if one standard run serves all. Right: the best of 30, 2 % below 0"
show(fig, "Any number of parts may seem harmful: one lucky run is in all comparisons", alt)
''', hide=True)
md(r'''
**Figure 5.** All variants are equal in truth. Left: how many seem to improve. Right: by how much the best one seems to.

**Finding.** Not fifteen give or take a few: every number from 0 to 30 is equally likely (15 ± 8.9; with a standard run for each it is 15 ± 2.7). The standard's one run is in all thirty comparisons. The best of thirty seems to gain 2.1 %, and gains nothing when it is run again. Even with three seeds, 76 % of such studies mark something by 2σ. Holm's rule brings that down to 5 %. It sorts the $m$ p-values and asks the $i$-th smallest to be at most $5\,\%/(m-i+1)$, until one fails. The price is power: with three seeds only large effects survive it.

### Choosing on test images, and unequal effort

**Choice.** $M$ settings are equal in truth. On one image a network's score scatters by 30 % around the truth. We take the best of the $M$ on $N$ test images and report its score on the same images.

**Effort.** The recorded tuning of `mnist-10k` has errors of every model at six values of $\beta$ (800 steps, validation images, two seeds). What would a model have got with fewer trials? The mean over all choices of $n$ of the six says it exactly ([Dodge et al. 2019](https://arxiv.org/abs/1909.03004) do this for random search).
''')
code(r'''
seeded = torch.Generator().manual_seed(2)
settings = (1, 2, 5, 10, 30)
flattery = {N: [] for N in (16, 100, 1000)}  # test images ↦ bias of the winner's score
for N, M in itertools.product(flattery, settings):
    score = 30 / math.sqrt(N) * torch.randn(20_000, M, generator=seeded)  # %
    flattery[N].append(score.amin(1).mean().item())
for N, found in flattery.items():
    print(f"{N:4d} test images: the best of 30 is flattered by {-found[-1]:.1f} %")
''', check=True)
code(r'''
trials = {}  # model ↦ β ↦ validation error of each seed
for cell in recorded("mnist-10k-tuning.json")["cells"]:
    if cell["varied"] == "beta":
        own = trials.setdefault(cell["model"], {})
        own.setdefault(cell["weights"]["beta"], []).append(min(cell["errors"].values()))
EFFORT = {}  # model ↦ expected best after 1, …, 6 trials
for model in ("free-flow", "beta-vae", "flow-factorized", "msp"):
    e = [mean(errors) for errors in trials[model].values()]
    best_of = [map(min, itertools.combinations(e, n)) for n in range(1, len(e) + 1)]
    one, two, *_, six = EFFORT[model] = list(map(mean, best_of))
    print(f"{model:<16} best after 1, 2, 6 trials: {one:.3f} {two:.3f} {six:.3f}")
''', check=True)
code(r'''
fig, (left, right) = plotting.figure(9.5, 3.0, 1, 2)
for i, (N, found) in enumerate(flattery.items(), start=2):
    left.plot(settings, found, label=f"{N:,} test images", **look(i))
left.axhline(0, color="black", ls="--", lw=1)
left.text(12, 0.6, "truth, and the score on fresh images", fontsize=9)
left.set(xlabel="settings tried", ylabel="score that is reported, % off", ylim=(-17, 2))
shades = {"free-flow": 1, "flow-factorized": 0, "beta-vae": 2, "msp": 4}
for model, i in shades.items():
    right.plot(range(1, 7), EFFORT[model], label=model, **look(i, lw=2.5 if i == 1 else 1.5))
right.set(xlabel="values of β tried", ylabel="expected best validation error", ylim=(0.27, 0.43))
for axis in (left, right):
    axis.legend(frameon=False, fontsize=9)
alt = "Left: the reported score falls below the truth with settings tried. Right: best error over trials"
show(fig, "A winner's own test images flatter it; so does a rival that was tried once", alt)
''', hide=True)
md(r'''
**Figure 6.** Left: simulated; means of 20,000 studies. Right: recorded; its axis does not start at 0. Each model is moved by whichever is better on validation images, its own motion or the ridge map.

**Finding.** On 16 images the best of 30 equal settings is flattered by 15.3 %, on 1,000 images by 1.9 %. A choice on validation images costs nothing: the score on fresh images is 0 % off. Effort decides rankings. After these short trainings, β-VAE reaches 0.296 with all six values and free-flow 0.301. Give β-VAE one random value and it is at 0.313: the ranking has turned, by effort alone. In this course's tuning all models get the same grid of β.

## 6 · Equal within a margin

**Question.** How does one *show* that a part makes no difference? A wide interval holds 0 too. So state a **margin** $\Delta$ beforehand: a change of the error below it would not matter. Here $\Delta=5\,\%$. The claim to be refuted is $|\delta|\ge\Delta$. [Schuirmann (1987)](https://doi.org/10.1007/BF01068419) tests its two halves, each one-sided at 5 %:

$$\frac{\bar\delta+\Delta}{\sigma/\sqrt n}>t_{0.95,\,n-1}\quad\text{and}\quad\frac{\Delta-\bar\delta}{\sigma/\sqrt n}>t_{0.95,\,n-1}.$$

Solved for $\pm\Delta$: the **90 % interval** lies within $\pm\Delta$. Each half has 5 % of error at its own border, and only one border can be near. So 90 %, not 95. Nothing is said about 0. A difference may be real *and* negligible. There are two questions, hence four verdicts:

| | 90 % interval within ± Δ | 90 % interval not within ± Δ |
|---|---|---|
| **95 % interval holds 0** | equal within Δ | undecided |
| **95 % interval does not** | different, by less than Δ | different |
''')
code(r'''
seeded, true = torch.Generator().manual_seed(3), torch.arange(0, 16.0)  # true change, %
share = {}  # rule ↦ how often it says "equal within 5 %", for each true change; σ = 3 %
for n in (3, 5, 10):
    draw = true[:, None, None] + 3 * torch.randn(len(true), 20_000, n, generator=seeded)
    centre, error = draw.mean(2).abs(), draw.std(2) / math.sqrt(n)
    inside, zero = (student.ppf(q, n - 1) * error for q in (0.95, 0.975))
    share[f"two one-sided tests, {n} seeds"] = (centre + inside < 5).double().mean(1)
    share[f"'not significant', {n} seeds"] = (centre < zero).double().mean(1)
''')
code(r'''
fig, axis = plotting.figure(8, 3.1)
curves = [rule for rule in share if "two" in rule or "3" in rule]
for i, rule in enumerate(curves, start=1):
    at = ", ".join(f"{share[rule][x]:.0%}" for x in (0, 5, 10))
    print(f"{rule:<30} says equal at a true change of 0, 5, 10 %: {at}")
    axis.plot(true, share[rule], label=rule, **look(i, ls="--" if "not" in rule else "-"))
axis.axvspan(0, 5, color="0.93", zorder=-2)
axis.axhline(0.05, color="0.4", ls=":", lw=1)
axis.text(13.2, 0.07, "5 %", fontsize=9)
axis.set(xlabel="true change of the error, %", ylabel="share of studies that say 'equal'", ylim=(0, 1.03))
axis.legend(frameon=False, fontsize=9)
alt = "Studies that say equal over the true change: 'not significant' stays high, the two tests fall to 5 %"
show(fig, "'Not significant' calls a change of 10 % equal; two one-sided tests do not", alt)
''', hide=True)
md(r'''
**Figure 7.** How often each rule says "equal within 5 %". Spread of a difference over seeds: 3 %. Grey: where that is true.

**Finding.** "Not significant, so equal" is said in 63 % of studies at a true change of 5 % and in 19 % at 10 %. Two one-sided tests say it in at most 5 % from the margin on, whatever $n$. With few seeds they often stay silent: where nothing changes they say it in 41 % of studies with three seeds, in 84 % with five, in 100 % with ten. The remaining verdict, *undecided*, is honest, and more seeds cure it.

## 7 · The recorded ablations

**Question.** Which parts does the model need, at the standard's settings, on digits? `poflow-lite study ablations` trained every variant and measured it on the test images, which chose nothing.
''')
code(r'''
MARGIN = 0.05  # stated before the record was made


def verdict(line):
    change, n = line.differences["error"], len(line.cells)
    if change.spread is None:
        return "one seed"
    different = abs(change.mean) > half(change, n)
    small = abs(change.mean) + half(change, n, 0.90) < MARGIN
    if different:
        return "different, by less than 5 %" if small else "different"
    return "equal within 5 %" if small else "undecided"
''')
code(r'''
ROWS = [line for line in LINES.values() if line.differences and line.group != "horizon"]
for line in ROWS:
    change, n = line.differences["error"], len(line.cells)
    reach_ = "" if n == 1 else f"± {half(change, n):.1%}"
    absolute = mean(values(line, "error"))
    said = f"{absolute:.3f}  {change.mean:+6.1%} {reach_:<8} {verdict(line)}"
    print(f"{name_of(line):<30}{said}")
tested = [line.differences["error"] for line in ROWS if len(line.cells) > 1]
n = len(STANDARD.cells)
t = [abs(change.mean) / change.spread * math.sqrt(n) for change in tested]
p = torch.tensor(2 * student.sf(t, n - 1))
print(f"standard: {mean(values(STANDARD, 'error')):.3f}")
alone, together = int((p < 0.05).sum()), int(holm(p).sum())
print(f"of {len(p)} changes p < 5 %: {alone}, after Holm: {together}")

VERDICTS = {"different": 3, "different, by less than 5 %": 1, "equal within 5 %": 2}
VERDICTS |= {"undecided": 4, "one seed": 7}
fig, axis = plotting.figure(9, 1.1 + 0.25 * len(ROWS))
for row, line in enumerate(ROWS):
    change, i = line.differences["error"], VERDICTS[verdict(line)]
    interval(axis, row, line, i)
    narrow = 100 * half(change, len(line.cells), 0.90)
    if math.isfinite(narrow):
        ends = [100 * change.mean - narrow, 100 * change.mean + narrow]
        axis.plot(ends, [row, row], color=plotting.COLORS[i], lw=3)
percent_axis(axis, ROWS)
axis.set_xscale("symlog", linthresh=5, linscale=2)
ticks = [-20, -10, -5, -2, 0, 2, 5, 10, 20, 50]
axis.set_xticks(ticks, map(str, ticks))
axis.set_xlim(-25, 80)
axis.minorticks_off()
axis.set_xlabel("change of error, % of its reference (linear within ± 5, logarithmic beyond)")
for label, i in VERDICTS.items():
    count = sum(verdict(line) == label for line in ROWS)
    style = {"marker": "o", "mfc": "white", "color": "0.35"} if i == 7 else {}
    axis.plot([], [], ls="none", label=f"{label} ({count})", **look(i, **style))
axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.3, -0.06), ncols=3)
firm = [verdict(line) for line in ROWS if len(line.cells) > 1]
inside = sum("5 %" in v for v in firm)
title = f"{inside} of {len(firm)} changes with several seeds are shown to matter by less than 5 %"
alt = f"Intervals of {len(ROWS)} changes: {inside} of {len(firm)} within 5 %, one-seed rows hollow, no bars"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 8.** Thick: 90 %, thin: 95 %. Beside each name: the absolute error. The reference is the standard; for the group *field* it is the gradient without penalty. Consistency is the agreement term of lesson 07, at 0.1. Hollow: one seed.

**Finding.** «FOREST»

### (a) The penalty on the paths

The Hamilton–Jacobi penalty asks for optimal paths. The **OT gap** is kinetic energy ÷ squared Wasserstein distance of the clouds at $t=0$ and $T$; 1 is optimal. It factors into *pairing* ÷ *efficiency*: whether ends belong to the right starts, and whether the way is straight at constant speed.
''')
code(r'''
FORMS = {"error": ".3f", "sequence": ".1f", "frame by x_0": ".1f", "ot_gap": ".2f"}
FORMS |= {"efficiency": ".2f", "pairing": ".2f", "smallest_eigenvalue": ".2f"}


def report(places, measures):  # absolute; in brackets the difference, with its interval
    print(" " * 28 + "".join(f"{measure[:21]:>23}" for measure in measures))
    for line in (LINES[place] for place in places):
        text = f"{name_of(line):<28}"
        for measure in measures:
            found, form = values(line, measure), FORMS[measure]
            entry = f"{mean(found):{form}}" if found else "-"
            if found and measure in line.differences and measure != "error":
                change, n = line.differences[measure], len(line.cells)
                wide = f" ± {half(change, n):{form}}" if n > 1 else ""
                entry += f" ({change.mean:+{form}}{wide})"
            text += f"{entry:>23}"
        print(text)


WEIGHTS = {w: ("hamilton-jacobi", f"λ_HJ = {w}") for w in (0, 1, 10, 100)}
WEIGHTS[10] = ("standard", "standard")
fields = [("field", name) for name in ("gradient", "free", "divergence-free")]
report([*WEIGHTS.values(), *fields], ("error", "ot_gap", "efficiency", "pairing"))

chosen = {f"gradient\nλ = {w}": place for w, place in WEIGHTS.items()}
chosen |= {"free": ("field", "free"), "divergence-\nfree": ("field", "divergence-free")}
fig, axes = plotting.figure(10, 3.0, 1, 2)
for i, (axis, measure) in enumerate(zip(axes, ("ot_gap", "error"), strict=True)):
    for x, place in enumerate(chosen.values()):
        found = values(LINES[place], measure)
        axis.plot([x] * len(found), found, ls="none", **look(0, mfc="white"))
        axis.plot(x, mean(found), **look(0, ms=4))
    axis.axhline(1, color="black", ls="--", lw=1)
    axis.set_xticks(range(len(chosen)), list(chosen), fontsize=8)
    axis.set_ylim(0, None)
    axis.margins(x=0.1)
    axis.set_ylabel(("OT gap", "error ÷ no motion")[i])
    axis.text(0, 1.03, ("optimal", "no motion")[i], fontsize=9)
gap = {w: mean(values(LINES[place], "ot_gap")) for w, place in WEIGHTS.items()}
err = {w: mean(values(LINES[place], "error")) for w, place in WEIGHTS.items()}
title = f"The penalty brings the OT gap from {gap[0]:.2f} to {gap[10]:.2f}, the error from "
title += f"{err[0]:.3f} to {err[10]:.3f}"
alt = f"OT gap, {gap[0]:.2f} without penalty and {gap[100]:.2f} at 100; errors all near {err[10]:.2f}"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 9.** Hollow: single seeds. Small filled: means. Dashed: optimal, and no motion.

**Finding.** «GAP»

### (b) The density and the prior

Three ways to say how a step changes a log-density: the determinant $\log|\det(I+H)|$; its first order, the trace $\operatorname{tr}H$; or nothing. With eigenvalues $h_i>-1$ of a symmetric $H$, $\log\det(I+H)=\sum_i\log(1+h_i)\le\sum_ih_i=\operatorname{tr}H$. So the trace overstates every expansion. Positions do not depend on the choice, only the price in the KL terms does.

Three priors: *diffusing* and *static* belong to reading A of lesson 07, one KL a frame. *No path KL* trains with `prior=pushforward`: that is reading B, one bound on the whole film and one KL. The likelihood of the film is the fair currency for both readings. Likelihoods always use the exact density.
''')
code(r'''
model, films = models["no penalty", 0], held_out.batch(torch.arange(100), 0)
with torch.no_grad():
    path = model.rollout(model.encode(films.frames[:, 0]).mean, films.k, range(5))
    trace = model.flow.field.laplacian(*path.step_starts())
exact = path.log_det.flatten()
print(f"live: log det ≤ trace in {(exact <= trace + 1e-5).sum()} of {len(trace)} steps")
print(f"mean log det {exact.mean():.2f}, mean trace {trace.mean():.2f} nats a step")
''')
code(r'''
TAKEN = [("standard", "standard"), ("prior", "static N(0, I)"), ("prior", "no path KL")]
TAKEN += [("log_det", "trace"), ("log_det", "none")]
report(TAKEN, ("error", "sequence", "frame by x_0", "smallest_eigenvalue"))

labels = ("standard", "static\nprior", "no path KL\n(reading B)", "trace", "no\ndensity")
fig, axes = plotting.figure(10.5, 2.9, 1, 3)
shown = [m for m in ("error", "sequence", "frame by x_0") if any(values(LINES[p], m) for p in TAKEN)]
for axis, measure in zip(axes, [*shown, "smallest_eigenvalue"][:3], strict=True):
    for x, place in enumerate(TAKEN):
        found = values(LINES[place], measure)
        axis.plot([x] * len(found), found, ls="none", **look(1 if "no path" in place[1] else 0, mfc="white"))
        if not found:
            axis.text(x, 0.5, "not\nmeasured", ha="center", fontsize=8, transform=axis.get_xaxis_transform())
    axis.set_xticks(range(len(labels)), labels, fontsize=7.5)
    named = {"error": "error ÷ no motion", "smallest_eigenvalue": "smallest eigenvalue of I + H"}
    axis.set_title(named.get(measure, f"{measure}, nats a frame"), fontsize=10)
axes[0].set_ylim(0, 1.05)
axes[0].axhline(1, color="black", ls="--", lw=1)
axes[0].text(-0.3, 0.94, "no motion", fontsize=8)
errors = [mean(values(LINES[place], "error")) for place in TAKEN]
title = f"Errors lie between {min(errors):.3f} and {max(errors):.3f}; the likelihoods move"
alt = f"Errors of five variants near {errors[0]:.2f}, and likelihoods in nats a frame, seed by seed"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 10.** Every marker is one seed. The last two panels do not start at 0; likelihoods have no natural zero.

**Finding.** «DENSITY»

> **Note.** "No path KL" changes two things in one word: the reading, and the weight. It pays one KL a film where the standard pays $T+1=9$, at the same β. The record cannot separate them.

### (c) The field and the agreement, one change at a time

The row *consistency: free* differs from the standard in three settings. A chain of single changes takes it apart. On the scale of logarithms the steps add up exactly.
''')
code(r'''
CHAIN = [("standard", "standard"), ("field", "gradient"), ("field", "free")]
CHAIN.append(("consistency", "free"))


def logs(place):  # seed ↦ mean log of the errors
    cells = LINES[place].cells
    found = {cell["seed"]: cell["ratio_to_no_motion"].values() for cell in cells}
    return {seed: mean(map(math.log, ratios)) for seed, ratios in found.items()}
''')
code(r'''
NAMES = ("penalty removed", "gradient → free", "agreement added", "all three at once")
ends = [*itertools.pairwise(map(logs, CHAIN)), (logs(CHAIN[0]), logs(CHAIN[-1]))]
for name, (old, new) in zip(NAMES, ends, strict=True):
    pairs = [(new[seed], old[seed]) for seed in new if seed in old]
    change = paired_difference(*zip(*pairs, strict=True))
    to, wide = math.exp(mean(new.values())), half(change, len(pairs))
    print(f"{name:<18} → {to:.3f}   log change {change.mean:+.3f} ± {wide:.3f}")
''')
md(r'''
**Finding.** «CHAIN»

### (d) Weights and sizes

β is not a part but a price. It is a yardstick for all other rows: how far do error and likelihood move when nothing changes but this number? The other panels vary a size. Another $T$ is another task, with another no motion.
''')
code(r'''
usual = STANDARD.cells[0]["settings"]
SIZES = {"β": ("beta", "β = {:g}", (0.01, 0.03, 0.1, 0.3, 1.0), "beta")}
SIZES |= {"latent dimension d": ("latent", "d = {}", (8, 16, 32, 64), "latent")}
SIZES |= {"frames S": ("frames", "S = {}", (1, 2, 4, 8), "frames")}
SIZES |= {"hidden units m": ("width", "{} units", (8, 64, 256), "width")}
SIZES |= {"Euler steps a frame": ("substeps", "{} Euler steps", (1, 2, 4), "substeps")}
SIZES |= {"T (another task)": ("horizon", "T = {}", (4, 8, 16), "horizon")}
SWEEPS = {}
for label, (group, form, sizes, setting) in SIZES.items():
    sweep = {v: LINES.get((group, form.format(v)), STANDARD) for v in sizes}
    assert usual[setting] in sizes
    SWEEPS[label] = sweep
    seeds = min(len(line.cells) for line in sweep.values())
    found = [f"{v:g}: {mean(values(line, 'error')):.3f}" for v, line in sweep.items()]
    print(f"{label:<20} seeds {seeds}   error at", ", ".join(found))
for beta, line in SWEEPS["β"].items():
    print(f"β = {beta:<5g} frame by x_0 {mean(values(line, 'frame by x_0')):.1f} nats")

fig, axes = plotting.figure(10.5, 4.8, 2, 3, sharey=True)
for axis, (label, sweep) in zip(axes.flat, SWEEPS.items(), strict=True):
    for i, k in enumerate(KS):
        axis.plot([mean(values(line, k)) for line in sweep.values()], lw=1, color=plotting.COLORS[i + 2])
        for x, line in enumerate(sweep.values()):
            found = values(line, k)
            face = "white" if len(found) == 1 else plotting.COLORS[i + 2]
            axis.plot([x] * len(found), found, ls="none", **look(i + 2, mfc=face, ms=5))
    axis.axhline(1, color="black", ls="--", lw=1)
    axis.set(xlabel=label, yscale="log", ylim=(0.11, 1.15))
    axis.set_yticks([0.15, 0.2, 0.3, 0.5, 1], ["0.15", "0.2", "0.3", "0.5", "1"])
    axis.minorticks_off()
    axis.set_xticks(range(len(sweep)), [f"{v:g}" for v in sweep])
for i, k in enumerate(KS):
    axes[0, 0].plot([], [], label=k, **look(i + 2))
axes[0, 0].plot([], [], color="black", ls="--", lw=1, label="no motion")
axes[0, 0].legend(frameon=False, fontsize=8, loc="center left", ncols=2, bbox_to_anchor=(0, 0.75))
for axis in axes[:, 0]:
    axis.set_ylabel("error ÷ no motion")
span = [mean(values(line, "error")) for line in SWEEPS["β"].values()]
title = f"β moves the error from {min(span):.2f} to {max(span):.2f}; hollow: one seed"
alt = f"Errors over six sizes; beta moves them from {min(span):.2f} to {max(span):.2f}; hollow: one seed"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 11.** Filled: every seed of a value with several seeds. Hollow: one seed, no interval. Lines join means. Logarithmic axis.

**Finding.** «SIZES»

> **Session 1 in five lines.** (1) Subtract seed by seed, then average; give the interval and the absolute value. (2) One seed has no interval. (3) Count the comparisons; one lucky standard run is in all of them. (4) Choose on validation images, with equal effort. (5) Equality needs a margin and two one-sided tests; "not significant" is not equal.
''')
