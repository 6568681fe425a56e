from lib import *

md(r'''
# Session 2 · Cost: what do the parts take?

Session 1 asked what a part buys. This session asks what it takes: multiplications, milliseconds, memory, calls. Then it divides one by the other: which error do seconds of training buy?

## 8 · A training step on paper

**Question.** Which part of a step grows with which size? Count multiplications; sums come with them.

**Networks.** A step encodes $2B$ images and decodes $(S+2)B$: frame 0, $S$ later ones, and one for the autoencoding term. A convolution costs (output pixels) × (window) × (channels in) × (channels out). $T$, $K$ and, nearly, $d$ do not enter.

**Transport.** $B$ latents pass $T$ steps. All $K$ fields are evaluated for every sample, so that mixtures cost the same. For one of the $TB$ points, with $h=Wz+V\hat\varphi(t)$ of lesson 07:

- velocity: $Kmd$ for $Wz$, $Kmd$ back, $Kd^2$ for $Mz$, $df$ for the drift;
- Jacobian, for the density only: $Km(d+f)$ for $h$ once more, then $Km\,d^2$ to add up the outer products $r_jw_j^\top$, and $Kd^2$ for $M$;
- $\log|\det|$, for the density only: a factorisation, $d^3/3$.

Two products are made once a rollout: $V\hat\varphi$, $TKmf$, and the drift's weights, $BKdf$. The backward pass costs about twice the forward one, with the same powers.

**Reading B** ([lesson 07](07-flow-factorized-vae.ipynb), section 5) needs neither Jacobian nor determinant: a common map changes no KL. What stays is $O\bigl(TBK(m+d)d\bigr)$. Reading A has $O\bigl(TB(Km\,d^2+d^3)\bigr)$. The trace, $\sum_j(1-\tanh^2h_j)\,r_j\cdot w_j+\operatorname{tr}M$, is cheap too, but it is not the density of the step that is made.
''')
code(r'''
def transport(d, m, K, T, B, f, density="exact"):  # multiplications, forward
    once, hidden = K * (T * m + B * d) * f, K * m * (d + f)
    terms = {"velocity": T * B * (2 * K * m * d + K * d**2 + d * f) + once}
    if density == "exact":
        terms["Jacobian"] = T * B * (hidden + K * m * d**2 + K * d**2)
        terms["log det"] = T * B * d**3 / 3
    if density == "trace":
        terms["trace"] = T * B * (hidden + K * m) + K * m * d
    return terms
''')
code(r'''
def digits(model="flow-factorized", **change):  # the recipe of digits
    return experiments.recipe("digits", "lecture", model, **change)


SIZE = {"m": digits().width, "K": 3, "T": digits().horizon, "B": digits().batch_size}
SIZE["f"] = 2 + 2 * digits().frequencies
for d in (32, 64, 128, 256):
    whole = sum(transport(d, **SIZE).values())
    assert math.isclose(whole, cost_measures.transport_operations(digits(latent=d)))
''')
code(r'''
networks = cost_measures.network_operations(digits())
for d in (32, 64, 128, 256):
    terms = transport(d, **SIZE)
    A, B = sum(terms.values()), sum(transport(d, **SIZE, density="none").values())
    shares = ", ".join(f"{name} {count / A:.0%}" for name, count in terms.items())
    print(f"d = {d:3d}: A {A / 1e6:5.0f} million ({shares}), B {B / 1e6:3.0f} million")
print(f"encoder and decoder, 2B + (S + 2)B images: {networks / 1e6:.0f} million")
''', check=True)
md(r'''
**Check.** PyTorch can count multiplications while it runs (it does not know the factorisation).
''')
code(r'''
for prior, density in {"diffusion": "exact", "pushforward": "none"}.items():  # A, B
    settings = digits(prior=prior, hamilton_jacobi=0.0, latent=64)
    model = experiments.build_model("flow-factorized", settings)
    z, k = torch.zeros(SIZE["B"], 64), torch.zeros(SIZE["B"], dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        path = model.rollout(z, k, range(SIZE["T"] + 1))
        path.log_det if density == "exact" else None  # worked out where it is read
    terms = transport(64, **SIZE, density=density)
    ours = sum(terms.values()) - terms.get("log det", 0)
    counted = counter.get_total_flops() / 2
    print(f"{prior:<12} counted {counted:,.0f}, by formula {ours:,.0f}")
''', check=True)
code(r'''
d = torch.logspace(4, 10, 200, base=2, dtype=torch.float64)
terms = transport(d, **SIZE)
total = sum(terms.values())
fig, (left, right) = plotting.figure(10, 3.2, 1, 2)
shades = [plotting.COLORS[i] for i in (1, 0, 3)]
left.stackplot(d, [count / total for count in terms.values()], labels=list(terms), colors=shades, alpha=0.8)
left.axvline(digits().latent, color="black", ls="--", lw=1)
left.text(digits().latent * 1.06, 0.5, "recipe", fontsize=9)
left.set(ylabel="share of A's transport", ylim=(0, 1))
kinds = {"A: determinant": ("exact", 0), "A with a trace": ("trace", 4), "B: joint bound": ("none", 1)}
for label, (density, i) in kinds.items():
    right.plot(d, sum(transport(d, **SIZE, density=density).values()), label=label, markevery=28, **look(i))
right.axhline(networks, color="black", ls="--", lw=1, label="encoder and decoder")
right.set(yscale="log", ylabel="multiplications a step, forward")
for axis in (left, right):
    axis.set_xscale("log")
    axis.set_xticks([16, 32, 64, 128, 256, 512, 1024], map(str, [16, 32, 64, 128, 256, 512, 1024]))
    axis.minorticks_off()
    axis.set_xlabel("latent dimension d")
    axis.legend(frameon=axis is left, fontsize=9, loc="lower right" if axis is left else "upper left")
alt = "Left: the Jacobian takes most of A's transport up to some hundred d. Right: A overtakes the networks"
show(fig, "Up to some hundred dimensions the Jacobian is dear, not its determinant", alt)
''', hide=True)
md(r'''
**Figure 12.** Formula, digits recipe: $m=64$, $K=3$, $T=8$, $B=32$. Right: the dashed line does not depend on the density.

**Finding.** At $d=32$ the transport of A needs 60 million multiplications, the networks 522 million. 89 % of the 60 are spent on building Jacobians, 5 % on the factorisation. At $d=256$ A needs 4,792 million, B 76 million. The cubic term overtakes the quadratic one only near $d=3Km=576$.

## 9 · Trace, determinant, joint bound: measured

**Question.** Does the clock agree? A whole training step, forward and backward with Adam, on noise, for $d=32$ to 256. All take turns, so that a busy machine slows all alike; medians of three rounds.
''')
code(r'''
CHANGES = {"A: determinant": {}, "A with a trace": {"log_det": "trace"}}
CHANGES |= {"B: joint bound": {"prior": "pushforward"}, "VAE": {}}
DIMENSIONS, CPU, work = (32, 64, 128, 256), torch.device("cpu"), {}
for (label, change), d in itertools.product(CHANGES.items(), DIMENSIONS):
    model = "vae" if label == "VAE" else "flow-factorized"
    settings = digits(model, latent=d, **change)
    work[label, d] = cost_measures.on_noise(model, settings, 3, CPU)
taken = cost_measures.in_turns(work, 3, CPU)  # milliseconds, three each
''')
code(r'''
TIMES = {}
for label in CHANGES:
    TIMES[label] = times = [sorted(taken[label, d])[1] for d in DIMENSIONS]
    shown = "".join(f"{ms:7.0f}" for ms in times)
    ratio = times[-1] / times[0]
    print(f"{label:<16} ms at d = 32, 64, 128, 256:{shown}   ratio {ratio:5.1f}")

fig, axis = plotting.figure(8, 3.2)
for (label, times), i in zip(TIMES.items(), (0, 4, 1, 2), strict=True):
    axis.plot(DIMENSIONS, times, label=label, **look(i, lw=2.5 if i == 1 else 1.5))
axis.set(xscale="log", yscale="log", xlabel="latent dimension d", ylabel="ms a step")
axis.set_xticks(DIMENSIONS, map(str, DIMENSIONS))
axis.minorticks_off()
axis.legend(frameon=False, fontsize=9)
ratio = {label: times[-1] / times[0] for label, times in TIMES.items()}
A, B = ratio["A: determinant"], ratio["B: joint bound"]
title = f"From d = 32 to 256: × {A:.0f} with the determinant, × {B:.1f} without"
alt = f"Time of a step over d, log axes: steep with determinants, × {B:.1f} without, as flat as a VAE"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 13.** Live; medians of three rounds, no spread shown. The trace costs little more than the joint bound.

**Finding.** With the determinant a step is more than ten times dearer at $d=256$ than at 32. The joint bound stays below a factor of two, like the VAE. So B makes a large $d$ affordable. It is not a cheaper estimate of A's objective but another bound, on the whole film. Session 1 shows what it does to error and likelihoods.

## 10 · Which exponent should one see?

**Question.** The formula has $d$, $d^2$ and $d^3$. Which power does a clock show? If $C=\sum_ic_i$ with $c_i\propto v^{p_i}$, then

$$\frac{\mathrm d\log C}{\mathrm d\log v}=\sum_i\frac{c_i}{C}\,p_i .$$

The local exponent is the mean of the powers, weighed by their shares of the cost. A constant overhead is a term of power 0; it pulls every measured exponent down. So a fitted slope is compared with the slope of the *formula at the same sizes*.
''')
code(r'''
def slope(sizes, costs):  # least squares on log-log axes
    x, y = (torch.tensor(found).double().log() for found in (sizes, costs))
    x, y = x - x.mean(), y - y.mean()
    return (x @ y / x.square().sum()).item()


theirs = cost_measures.fit_exponent([1, 2, 4], [2, 3, 9]).slope
assert math.isclose(slope([1, 2, 4], [2, 3, 9]), theirs)
for sizes in ([4, 8, 16], [16, 32, 64], [128, 256, 512]):
    costs = [500 + v**2 for v in sizes]  # an overhead and a square
    print(f"500 + v² at {sizes}: fitted exponent {slope(sizes, costs):.2f}")
''', check=True)
code(r'''
AXES = {"latent": (32, 64, 128), "horizon": (4, 8, 16), "batch_size": (16, 32, 64)}
for axis, sizes in AXES.items():
    found = cost_measures.step_times((), axis, sizes, rounds=3)
    for name, formula in found["formula"].items():
        fitted = slope(sizes, found["curves"][name]["measured"])
        shown = f"fitted {fitted:5.2f}   formula {abs(formula['exponent']):.2f}"
        print(f"{axis:<11}{name.split(': ')[1]:<28} {shown}")
''')
md(r'''
**What it means.** The law 500 + v² shows the exponent 0.28, 1.30 or 1.98, depending on where one looks. In the measured rows the networks follow the formula closely: 0 against $d$ and $T$, 1 against $B$. The transport falls short of its 1 against $T$ and $B$ at these sizes. Conjecture: the overhead of its many small calls. The next section counts them.

## 11 · What a CPU spends its time on

**Question.** PyTorch carries out one *operation* after another. How many does a step dispatch, and what share of their time are convolutions and matrix products, which no model can avoid? A small watcher between PyTorch and its operations counts them and stops their time.
''')
code(r'''
class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls, self.seconds = Counter(), Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        began = perf_counter()
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        self.calls[name] += 1
        self.seconds[name] += perf_counter() - began
        return result
''')
code(r'''
def kind_of(name):
    if "convolution" in name:
        return "convolutions"
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        return "matrix products"
    return "determinants" if "linalg" in name else "all else"
''')
code(r'''
def watched(name, **change):  # operations of one forward and backward pass
    seeded = torch.Generator().manual_seed(0)
    noise = cost_measures.noise_batch(digits(name, **change), 3, seeded)
    model = experiments.build_model(name, digits(name, **change))
    for _ in range(3):  # the last one counts, the first fill caches
        with Watch() as watch:
            model.terms(noise, seeded).loss.backward()
    return watch
''')
code(r'''
SPENT = {"VAE": watched("vae"), "free-flow (B)": watched("free-flow")}
SPENT["flow-factorized, B"] = watched("flow-factorized", prior="pushforward")
SPENT["flow-factorized (A)"] = watched("flow-factorized")
for label, watch in SPENT.items():
    spent = Counter()
    for operation, seconds in watch.seconds.items():
        spent[kind_of(operation)] += seconds / sum(watch.seconds.values())
    SPENT[label] = watch.calls.total(), spent
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in spent.most_common())
    print(f"{label:<20}{watch.calls.total():4d} operations: {shares}")

fig, axis = plotting.figure(9, 2.6)
left_ = [0.0] * len(SPENT)
kinds = {"convolutions": (2, ""), "matrix products": (9, "..")}
kinds |= {"determinants": (3, "//"), "all else": (7, "xx")}
for kind, (i, hatch) in kinds.items():
    width = [spent[kind] for _, spent in SPENT.values()]
    style = {"color": plotting.COLORS[i], "hatch": hatch, "edgecolor": "white", "label": kind}
    axis.barh(range(len(SPENT)), width, left=left_, height=0.65, **style)
    left_ = [a + b for a, b in zip(left_, width, strict=True)]
names = [f"{label}\n{count} operations" for label, (count, _) in SPENT.items()]
axis.set(yticks=range(len(SPENT)), yticklabels=names, xlim=(0, 1))
axis.set_xlabel("share of the time inside operations")
axis.invert_yaxis()
axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
B, A = (SPENT[label][0] / SPENT["VAE"][0] for label in ("free-flow (B)", "flow-factorized (A)"))
title = f"Free-flow dispatches {B:.1f} times the operations of a VAE, reading A {A:.1f} times"
alt = "Shares of time: convolutions and matrix products lead in all four; determinants under A alone"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 14.** Live, digits recipe, one forward and backward pass. One run, no spread shown.

**Finding.** A VAE's step dispatches 145 operations, free-flow's 426, flow-factorized's 916 under reading A. Convolutions and matrix products take most of the time in all of them. So on a CPU three times the operations are far from three times the time (Figure 13 at $d=32$): the additional ones are small. On a GPU every operation is a launch of its own. There their number can matter more than their size; this lesson does not measure it.

## 12 · Recorded: sizes

**Question.** Does this hold for whole models, over wider ranges, and in memory? `poflow-lite study cost` measures the step of each model at each size, on noise, and memory in a fresh process.
''')
code(r'''
SIZED = {"vae": 2, "flow-factorized": 0, cost_measures.TRANSPORT: 7, "free-flow": 1}
PANELS = [("time", axis) for axis in ("latent", "horizon", "transformations")]
PANELS += [("memory", axis) for axis in ("latent", "batch_size", "pixels")]
found = [cell for cell in priced["cells"] if cell["kind"] in ("time", "memory")]
SIZED_CELLS = {(cell["kind"], cell["axis"]): cell for cell in found}
for (kind, axis), cell in SIZED_CELLS.items():
    shown = []
    for name in SIZED:
        if exponent := cell["curves"].get(name, {}).get("exponent"):
            shown.append(f"{name.split(': ')[-1]} {exponent['slope']:.2f}")
        if formula := cell["formula"].get(name):
            shown[-1] += f" (formula {abs(formula['exponent']):.2f})"
    print(f"{kind:<7}{axis:<16}", "   ".join(shown))
''', hide=True)
code(r'''
from matplotlib.ticker import LogLocator

fig, axes = plotting.figure(11, 5.4, 2, 3)
names = {"latent": "latent dimension d", "horizon": "T", "transformations": "K", "batch_size": "B"}
for axis, place in zip(axes.flat, PANELS, strict=True):
    if place not in SIZED_CELLS:
        axis.set_visible(False)
        continue
    cell = SIZED_CELLS[place]
    for name, i in SIZED.items():
        if name in cell["curves"]:
            style = look(i, lw=2.5 if i == 1 else 1.5, ls="--" if i == 7 else "-")
            label = {"flow-factorized": "flow-factorized (A)", "free-flow": "free-flow (B)"}.get(name, name)
            axis.plot(cell["values"], cell["curves"][name]["measured"], label=label.split(": ")[-1], **style)
    axis.set(xscale="log", yscale="log", xlabel=names.get(place[1], "pixels along a side"))
    axis.set_ylabel("ms a step" if place[0] == "time" else "MiB beyond the weights")
    axis.set_xticks(cell["values"], map(str, cell["values"]))
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
axes[0, 0].legend(frameon=False, fontsize=8)
rise = {}
for kind in ("time", "memory"):
    found = SIZED_CELLS[kind, "latent"]["curves"]["flow-factorized"]["measured"]
    rise[kind] = found[-1] / found[0]
times, more = rise["time"], rise["memory"]
title = f"Reading A: d = 256 takes × {times:.0f} the time and × {more:.1f} the memory of d = 32"
alt = f"Time and memory of a step over sizes: reading A rises {times:.0f} times over d, the others hardly"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 15.** Recorded, digits recipe; medians of seven rounds, memory measured once. Logarithmic axes. Grey, dashed: the transport of flow-factorized alone, with densities.

**Finding.** «COSTSIZES»

## 13 · Seconds to an error

**Question.** A cheap step is no bargain if it takes ten times as many. Which error does a second of training buy? Each number of steps is a training of its own, since the learning rate ends at 0 in each. Errors are those of validation images. Every model is moved by whichever operator is best there: its own motion or the ridge map. Seconds are steps × the median time of a step, measured alone.

**Predict first.** Who is the first to reach half of no motion? Who reaches the last mark at all?
''')
code(r'''
BOUGHT, marks = cost.mean_errors(priced), priced["settings"]["thresholds"]
reached = {}  # model ↦ seconds until each mark
for model, (milliseconds, errors) in BOUGHT.items():
    for mark in marks:
        enough = [steps for steps, error in errors.items() if error <= mark]
        seconds = min(enough, default=math.inf) * milliseconds / 1e3
        reached.setdefault(model, []).append(seconds)
''')
code(r'''
steps = sorted({n for _, errors in BOUGHT.values() for n in errors})
print("trainings of", *steps, "steps; seeds", priced["settings"]["seeds"])
heading = "".join(f"{f'≤ {mark:g}':>8}" for mark in marks)
print(f"{'seconds until error':<20}{heading}   best    ms a step")
for model, times in reached.items():
    text = "".join(f"{s:8.0f}" if s < math.inf else "   never" for s in times)
    milliseconds, errors = BOUGHT[model]
    print(f"{model:<20}{text}   {min(errors.values()):.3f} {milliseconds:8.1f}")

others = [model for model in BOUGHT if model != cost.LEADING]
groups = [others[i : i + 3] for i in range(0, len(others), 3)]
fig, axes = plotting.figure(11, 3.2, 1, len(groups), sharey=True)
for axis, group in zip(axes, groups, strict=True):
    for model in [*group, *([cost.LEADING] if cost.LEADING in BOUGHT else [])]:
        milliseconds, errors = BOUGHT[model]
        place = group.index(model) if model in group else 0
        i = {cost.LEADING: 1, "flow-factorized": 0}.get(model, (2, 4, 5)[place])
        seconds = [steps * milliseconds / 1e3 for steps in errors]
        axis.plot(seconds, list(errors.values()), label=model, **look(i, lw=2.5 if i == 1 else 1.5))
    for mark in marks:
        axis.axhline(mark, color="0.5", ls=":", lw=0.8, zorder=0)
    axis.axhline(1, color="black", ls="--", lw=1)
    axis.set(xscale="log", xlabel="seconds of training", ylim=(0, 1.15))
    axis.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.9))
axes[0].set_ylabel("error ÷ no motion")
finite = {model: times[-1] for model, times in reached.items() if math.isfinite(times[-1])}
first = min(finite, key=finite.get) if finite else "no model"
title = f"{len(finite)} of {len(reached)} models reach {marks[-1]:g} of no motion; {first} is the first"
alt = f"Error over seconds, {len(reached)} models, four a panel: {first} reaches {marks[-1]:g} first"
show(fig, title, alt)
''', hide=True)
md(r'''
**Figure 16.** Recorded, digits. Dashed: no motion. Dotted: the marks. One seed where the table says so; then there is no interval, and times that differ by less than a factor of two are the same to this study, because steps double from one training to the next.

**Finding.** «SECONDS»

> **Note.** Two prices are not in the table. *Tuning*: a model with half a dozen weights takes more trials than one with a single β. *Ridge maps* are fitted after training and need the latents of many images.

## Summary

1. Compare seed by seed; say the absolute values; give an interval, or say that there is none.
2. Multiplicity, choice on test images, unequal effort, two changes at once: each makes effects from nothing, and each has a cure.
3. Equality within a margin is shown by two one-sided tests, whether or not the interval holds 0.
4. The exact density makes a step $O(TB(Km\,d^2+d^3))$; the joint bound of reading B leaves $O(TBK(m+d)d)$.
5. A measured exponent is the mean of the powers, weighed by shares; compare it with the formula at the same sizes.

## Common mistakes

- Drawing a one-seed row without a bar beside rows with bars.
- Reading ± standard deviation as an interval.
- Calling "not significant" equal, or asking that an interval hold 0 for equality.
- Praising a penalty by the quantity that it minimises.
- Timing models one after another on a busy machine, or fitting an exponent at small sizes.

## Exercises

Write in the cell below the prompt; each check prints one line.

**Exercise 1 · Warm-up: equal on the scale of ratios** (3 points). Errors are positive, so compare *ratios*. `values` and `references` hold the errors of $V$ variants and of their references, $(V,n)$ each, in pairs of seeds. `limit` is a number such as 1.25, `critical` the quantile $t_{0.95,\,n-1}$. Return $V$ booleans: do two one-sided tests on $\log(\text{value}/\text{reference})$ show that the true ratio lies strictly between 1/`limit` and `limit`?

<details><summary>Hint 1</summary>Section 6 on another scale: the margin is log limit.</details>

<details><summary>Hint 2</summary>Do you need to know whether the interval holds the ratio 1?</details>
''')
solution("lesson11-equivalent", r'''
def equivalent(values, references, limit, critical):  # → booleans (V,)
    ### BEGIN SOLUTION
    change = (values / references).log()
    reach = critical * change.std(1) / math.sqrt(change.shape[1])
    return change.mean(1).abs() + reach < math.log(limit)
    ### END SOLUTION
''')
check("lesson11-equivalent", 3, "checks.lesson11.equivalent(equivalent)")
md(r'''
**Exercise 2 · Derivation: how many parts seem harmful?** (4 points). $m$ variants equal the standard in truth; a run's luck is independent and continuous. (a) All are compared with *one* run of the standard. Show that the number of variants with a smaller error takes each value $0,\dots,m$ with probability $1/(m+1)$. (b) Its variance? (c) Each variant has a standard run of its own: which law, which variance? (d) What follows for a paper in which 27 of 30 removals do harm, with one seed?

<details><summary>Hint 1</summary>Sort all $m+1$ runs. Where can the standard's be?</details>

<details><summary>Hint 2</summary>$\sum_{j=0}^mj^2=m(m+1)(2m+1)/6$.</details>
''')
written("lesson11-rank", 4, r'''
**Your derivation.**

<details><summary>Solution</summary>

(a) The $m+1$ runs are exchangeable, so the standard's rank is uniform on $m+1$ places; the number below it is its rank less one. (b) $\frac{m(2m+1)}6-\frac{m^2}4=\frac{m(m+2)}{12}$; for $m=30$ it is 80, a standard deviation of 8.9. (c) Binomial with probability ½: $m/4=7.5$, a standard deviation of 2.7. Section 5 shows both. (d) Little: with one shared run, 27 has the same probability, 1/31, as any other number.
</details>
''')
md(r'''
**Exercise 3 · Implementation: a smaller determinant** (4 points). The Hessian of section 8 is $W^\top DW$ for $Q=0$, with $D$ diagonal. For $m<d$ a determinant of size $m$ will do. `weight` is $W$, $(m,d)$; `bend` holds the diagonal of $D$ for $B$ points, $(B,m)$. Return $\log|\det(I_d+W^\top DW)|$, $(B,)$, without any $d\times d$ matrix.

<details><summary>Hint 1</summary>Sylvester: $\det(I+XY)=\det(I+YX)$.</details>

<details><summary>Hint 2</summary>$WW^\top$ serves all points. The determinant may be negative.</details>
''')
solution("lesson11-small_determinant", r'''
def small_determinant(weight, bend):  # → (B,)
    ### BEGIN SOLUTION
    gram = weight @ weight.T
    eye = torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.slogdet(eye + bend[:, :, None] * gram).logabsdet
    ### END SOLUTION
''')
check("lesson11-small_determinant", 4, "checks.lesson11.small_determinant(small_determinant)")
md(r'''
**Exercise 4 · Experiment: what backward must keep** (4 points). Predict: how does the memory of a rollout grow with $d$ and with $T$, under A and under B? Measure it. `torch.autograd.graph.saved_tensors_hooks(pack, unpack)` calls `pack` with every tensor that is kept for the backward pass. Weigh them, each storage once, for flow-factorized models of the digits recipe with $d=32,64,128$, then $T=4,8,16$, with `hamilton_jacobi=0.0`.

<details><summary>Hint 1</summary>`tensor.untyped_storage()` has `data_ptr()` and `nbytes()`. Let $z$ require a gradient.</details>

<details><summary>Hint 2</summary>Section 8's check builds both models. Under A, read `log_det`; under B, do not.</details>
''')
solution("lesson11-memory-run", r'''
### BEGIN SOLUTION
def kept_bytes(prior, **sizes):
    settings = digits(prior=prior, hamilton_jacobi=0.0, **sizes)
    model, stored = experiments.build_model("flow-factorized", settings), {}
    z = torch.randn(settings.batch_size, settings.latent, requires_grad=True)

    def pack(tensor):
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        k = torch.zeros(len(z), dtype=torch.long)
        path = model.rollout(z, k, range(settings.horizon + 1))
        if prior == "diffusion":
            path.log_det
    return sum(stored.values())


for prior in ("diffusion", "pushforward"):
    for axis, sizes in {"latent": (32, 64, 128), "horizon": (4, 8, 16)}.items():
        kept_ = [kept_bytes(prior, **{axis: v}) for v in sizes]
        shown = ", ".join(f"{n / 2**20:.2f}" for n in kept_)
        print(f"{prior:<12}{axis:<9}{shown} MiB, exponent {slope(sizes, kept_):.2f}")
### END SOLUTION
''')
md(r'''
**Exercise 4, your numbers.** Return a $2\times2$ tensor of exponents. Rows: A, B. Columns: against $d$, against $T$.
''')
solution("lesson11-memory_exponents", r'''
def memory_exponents():
    ### BEGIN SOLUTION
    return torch.tensor([[1.87, 0.73], [1.06, 0.28]])
    ### END SOLUTION
''')
check("lesson11-memory_exponents", 4, "checks.lesson11.memory_exponents(memory_exponents)")
md(r'''
**Exercise 5 · Open: falsify a claim** (5 points). Take one sentence of this lesson, or of a paper, that says "part X helps" or "part X does not matter". Write the protocol *first*, on one page: measure, margin, seeds (with the spread of section 4, how many make "equal" likely?), images and who chooses on them, trials for each side, number of comparisons. Then run it. `poflow-lite study ablations --set groups=force --seeds 0,1,2,3,4` runs one group. A part of your own enters by `examples/own_model.py`; it becomes a row of the comparison table. Report the verdict even if it is *undecided*.

<details><summary>Hint 1</summary>A claim is falsifiable if you can say beforehand which interval would refute it.</details>

<details><summary>Hint 2</summary>Solve $t_{0.95,\,n-1}\,\sigma/\sqrt n<\Delta$ for $n$.</details>
''')
written("lesson11-open", 5, r'''
**Your answer.**
''')
md(r'''
## Quiz

**1.** With one seed, 27 of 30 variants are worse than the standard. Does the model need 27 of its parts?
<details><summary>Answer</summary>
Unknown. One run of the standard is in all thirty comparisons. If nothing mattered, 27 would be as likely as any number from 0 to 30.
</details>

**2.** The 90 % interval of a change is [+1 %, +3 %], the margin 5 %. Equal within the margin?
<details><summary>Answer</summary>
Yes: both one-sided tests reject. The change is also different from 0. Real and negligible do not exclude each other.
</details>

**3.** A penalty brings the OT gap of the flow from 2.2 to 1.4. What has been shown?
<details><summary>Answer</summary>
That training lowers what the penalty asks to lower. Whether the model is better must be seen in a measure that the penalty does not contain.
</details>

**4.** Why does reading B need no determinant in training, however the flow stretches?
<details><summary>Answer</summary>
Posterior and prior are carried by the same map. Both log-densities change by the same log-determinant, and only their difference enters.
</details>

**5.** A cost has terms in d, d² and d³ with shares 20 %, 70 %, 10 %. Local exponent? And with an overhead as large as all three together?
<details><summary>Answer</summary>
0.2 + 1.4 + 0.3 = 1.9. The overhead has power 0 and halves all shares: 0.95.
</details>
''')
md(r'''
## Further reading

* Miller, [Adding Error Bars to Evals](https://arxiv.org/abs/2411.00640), 2024. Paired differences, clustered images and power, for large language models; the same formulas.
* Bouthillier et al., [Accounting for Variance in Machine Learning Benchmarks](https://arxiv.org/abs/2103.03098), MLSys 2021. Which luck is large: seeds, data order, splits.
* Schuirmann, [A comparison of the two one-sided tests procedure and the power approach](https://doi.org/10.1007/BF01068419), 1987. Equality within a margin.
* Holm, [A simple sequentially rejective multiple test procedure](https://www.jstor.org/stable/4615733), 1979.
* Dodge et al., [Show Your Work](https://arxiv.org/abs/1909.03004), EMNLP 2019. The best of $n$ trials as a curve.
* Melis, Dyer & Blunsom, [On the State of the Art of Evaluation in Neural Language Models](https://arxiv.org/abs/1707.05589), ICLR 2018. Equal tuning turns a ranking.
* Lipton & Steinhardt, [Troubling Trends in Machine Learning Scholarship](https://arxiv.org/abs/1807.03341), 2018. Gains whose source was not ablated.
* Grathwohl et al., [FFJORD](https://arxiv.org/abs/1810.01367), ICLR 2019. Densities by estimated traces.
* Onken et al., [OT-Flow](https://arxiv.org/abs/2006.00104), AAAI 2021. Potentials with derivatives in closed form and a Hamilton–Jacobi penalty.
''')
md(r'''
<details><summary><b>Notes for teachers</b></summary>

**Timing.** Session 1, 90 minutes: sections 1 to 3, 25; 4, 15 (start the training before section 2); 5 and 6, 25; 7, 25. Session 2, 90 minutes: 8 and 9, 30; 10 and 11, 20; 12 and 13, 20; exercise 3 in pairs, 20.

**Misconceptions.** "Half of equal variants look better": not if they share the reference. "Not significant means equal." "Equal means that the interval holds 0." "More test images replace seeds": section 4. "The code is O(d³), so its exponent is 3." "B is a cheap estimate of A": it is another bound.

**Marking.** Checks award all or nothing. Exercise 2: exchangeability 2, variance 1, binomial 1; (d) without "unknown" at most 3. Exercise 5: protocol written before the run 2; margin, seeds and comparisons justified by numbers 1; equal effort on both sides 1; verdict follows from the intervals, undecided included 1.

**Variations.** Groups each defend one part and fix measure and margin before section 7 is opened. `poflow-lite study cost --set axes=latent` on the students' own machines: slopes side by side, milliseconds apart.
</details>
''')
md(r'''
**Next:** [12 · Beyond](12-beyond.ipynb). Every part was taken out of a model that is told $k$, on data where one thing moves at a time. What if several things move at once, and nobody says which?
''')
