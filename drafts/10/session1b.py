from kit import md, code

md(r"""
**Finding.** The flow ends about as far from the code as the motion is long: 0.83 to 1.34 of the way. Encoded anew at the switch, the second flow's error falls from 0.53 to 0.40; from the true code it is 0.37. Going back it has 0.34 from its own end and 1.13 from the code. So the pictures were right, and their latents were in the wrong place.

> **Note.** Decoding and encoding at every switch is a legitimate repair: feedback. It does nothing for two at once, where there is no moment of switching.

## 6 · Why, again: a gradient cannot run round a circle

**Question.** Could a potential flow end at the encoder's codes if it were asked to? Not for hue. Advance the hue by 360° and the same picture is back, so the codes of one digit in all hues form a closed curve. The flow should push along it everywhere. But along any closed curve the pushes of a gradient add up to nothing (lesson 05):

$$\oint\nabla u\cdot\mathrm dz=\int_0^1\tfrac{\mathrm d}{\mathrm ds}u(z(s))\,\mathrm ds=u(z(1))-u(z(0))=0 .$$

Yet `digits-flow` recolours digits well. **Predict first.** Where must its paths go?

<details><summary>Answer</summary>
Off the curve. Nothing stops them in the other dimensions. Each hue is pushed off in a direction of its own, and the decoder learns to read those places as later hues.
</details>

Beside it we put `digits-free-flow`. Its *free* field $v^k=\sum_j\tanh(h_j)\,r_j+Mz+C\varphi(t)$ has any $r_j$ and $M$, so it may turn. And its loss contains *agreement*, with $\lambda_a=0.1$:

$$\lambda_a\sum_{t\ge1}\mathrm{KL}\bigl(q_t(z\mid x_0,k)\,\|\,q(z\mid x_t)\bigr),$$

which asks that the flow end where the encoder puts $x_t$.
""")
code(r"""
def hue_codes(model, digit, hues=36):  # codes of one digit in equally spaced hues
    turn = torch.arange(hues) * 360.0 / hues
    images = upright.images[digit].expand(hues, -1, -1, -1)
    return model.encode(datasets.hue(images, turn)).mean


circles = {}
for name, model in {"potential": potential, "free + agreement": free}.items():
    z = hue_codes(model, DIGIT)
    middle, edge = 0.5 * (z + z.roll(-1, 0)), z.roll(-1, 0) - z
    wanted = 0.5 * (z.roll(-2, 0) + z.roll(-3, 0)) - middle  # 20° on, in one frame
    v = model.flow.field.velocity(middle, 0.0, alone(2, middle))
    needs, has = ((x * edge).sum() for x in (wanted, v))
    plane = torch.linalg.svd(z - z.mean(0))
    flat = plane.S[:2].square().sum() / plane.S.square().sum()
    path = model.rollout(z[::3], torch.full((12,), 2), range(T + 1)).z - z.mean(0)
    circles[name] = (z - z.mean(0)) @ plane.Vh[:2].T, path @ plane.Vh[:2].T
    print(f"{name:<17} {flat:.0%} of the variance of 36 hues in one plane")
    print(f"{'':<17} circulation: hue needs {needs:.0f}, the flow has {has.abs():.1f}")
""")
code(r"""
fig, axes = plotting.figure(8, 3.4, 1, 2)
degrees = torch.arange(36) * 10.0
red = torch.tensor([0.85, 0.1, 0.1]).view(1, 3, 1, 1).expand(36, -1, -1, -1)
paint = datasets.hue(red, degrees)[..., 0, 0].clamp(0, 1).numpy()
for axis, (name, (ring, paths)) in zip(axes, circles.items(), strict=True):
    axis.scatter(*ring.T, c=paint, s=40, label="codes of 36 hues")
    plotting.tracks(axis, paths, "0.3")
    axis.scatter(*paths[:, -1].T, c="black", marker="x", s=24, label="flow at t = 8")
    axis.set(title=name, xlabel="first axis, latent units", aspect="equal")
axes[0].set_ylabel("second axis")
axes[1].legend(frameon=False, fontsize=8, loc="center")
alt = "A ring of coloured codes. Paths of the potential flow leave it, others follow it"
show(fig, "The free flow follows the ring of hues, the potential flow leaves it", alt)
""", hide=True)
md(r"""
**Figure 4.** Codes of one digit in 36 hues, in the plane that holds most of their variance, and paths of the flow of hue from twelve of them.

**Finding.** The codes of all hues lie in one plane, on a closed curve. The circulation that hue needs is 45 in the first model, and its flow has 0.0, as it must. The free flow has 98.6 of 104. Its paths follow the ring. But the two models differ in *two* things, field and agreement. Which of them composes?

## 7 · Two causes apart: a 2×2 experiment

**Question.** Gradient or free field; agreement 0 or 0.1. Four models, all else equal: data, random start poses, networks, first weights of encoder and decoder, 300 steps, seed, no Hamilton–Jacobi penalty.

**Predict first.** Which cells will switch well? Which will find the way back?
""")
code(r"""
SMALL = {"network": "patches", "channels": (32,), "start": "random", "steps": 300}


def train(kind="flow-factorized", seed=0, **changes):
    if kind == "flow-factorized":
        changes = {"hamilton_jacobi": 0.0, **changes}
    chosen = recipe("digits", "lecture", kind, **SMALL | changes)
    model = build_model(kind, chosen, training.image_shape, K, seed)
    draws = getattr(model, "draws", {})

    def sample(g):
        return training.sample(chosen.batch_size, chosen.frames, g, **draws)

    schedule = Schedule(chosen.steps, chosen.learning_rate, warmup=30)
    fit(model, sample, schedule, seed=seed, progress=False)
    return model.requires_grad_(False)


grid, cause = {}, {}
for field_kind in ("gradient", "free"):
    for weight in (0.0, 0.1):
        name = field_kind + " + agreement" * bool(weight)
        grid[name] = train(field=field_kind, consistency=weight)
        cause[name] = tried(grid[name], {"flow": grid[name]})
""")
code(r"""
print(f"{'error of the flow (floor)':<26}" + "".join(f"{name:>21}" for name in grid))
for task in TRIED:
    both = ((row[task]["flow"], row[task]["floor"]) for row in cause.values())
    texts = (f"{error:.2f} ({floor:.2f})" for error, floor in both)
    print(f"{task:<26}" + "".join(f"{text:>21}" for text in texts))
bridged = {name: interventions(model) for name, model in grid.items()}
for what in bridged["free"]:
    values = (found[what] for found in bridged.values())
    print(f"{what:<26}" + "".join(f"{value:21.2f}" for value in values))
ends = [f"second flow, {bridge}" for bridge in ("passed on", "true code")]
passed = (found[ends[0]] - found[ends[1]] for found in bridged.values())
print(f"{'lost by passing on':<26}" + "".join(f"{value:21.2f}" for value in passed))
forwards = "switching", "two at once", "three at once", "16 frames"
above = [[row[t]["flow"] - row[t]["floor"] for t in forwards] for row in cause.values()]
texts = (f"{min(own):.2f} to {max(own):.2f}".rjust(21) for own in above)
print(f"{'forwards, above its floor':<26}" + "".join(texts))
far = {name: away(model) for name, model in grid.items()}
for k, name in enumerate(names):
    values = (f"{found[k]:21.2f}" for found in far.values())
    print(f"{'away ÷ way, ' + name:<26}" + "".join(values))
""")
code(r"""
fig, axis = plotting.figure(8, 3.9)
look = {"free + agreement": (OURS, {}), "free": (OURS, {"mfc": "none"})}
look |= {"gradient + agreement": (SECOND, {}), "gradient": (SECOND, {"mfc": "none"})}
for place, task in enumerate(TRIED):
    for shift, name in enumerate(grid):
        y, row = place + 0.18 * (shift - 1.5), cause[name][task]
        i, style = look[name]
        dots(axis, row["flow"], y, i, name if place == 0 else None, **style)
        floors(axis, row["floor"], y, "its floor" if (place, shift) == (0, 3) else None)
unit(axis)
axis.set(yticks=range(len(TRIED)), yticklabels=TRIED, xlabel="error ÷ no motion")
axis.invert_yaxis()
axis.grid(axis="y", lw=0.4, alpha=0.6)
axis.legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")
alt = "Errors of four models on eight tasks, and floors; backwards only one comes near"
show(fig, "A free field composes; the way back needs agreement as well", alt)
""", hide=True)
md(r"""
**Figure 5.** The four cells, 60 test images, one seed, so no spread. Session 2 has three seeds and 1,000 steps.

**Finding.** *Composed forwards*, freedom is the larger cause. The gradient cells lie 0.09 to 0.27 above their floors without agreement and 0.08 to 0.23 with it: 0.69 for switching (floor 0.59), 0.77 for three at once (0.50). The free cell is at most 0.08 above (three at once, 0.61 and 0.53), with agreement 0.02. *Backwards* neither cause is enough: 1.21, 1.39 and 1.64 are worse than no motion. Only both together give 0.75. That is an interaction. From the end of its own path every cell goes back at its floor, 0.51 to 0.57. So the inverse is sound, and it is the start at the encoder's code that fails.

**And the distance?** Agreement does bring flow and codes together: hue falls from 0.52 to 0.15 of the way. But distance alone does not break a composition. The free flow without agreement ends 0.52 to 0.87 away, and its second flow loses 0.01 by that (0.56 passed on, 0.55 from the true code). The gradient flow loses 0.10 (0.63 and 0.52). Conjecture: the linear part $Mz$ of the free field moves points off the codes in the same way as the codes.

> **Note.** Agreement is not free. On single motions the error rises from 0.56 to 0.62 for the gradient field and from 0.60 to 0.63 for the free one, and the floors rise with it. Exercise 4 measures more of it.

## 8 · What composing looks like

The pretrained pair again: both trained for 1,000 steps, on legible digits.
""")
code(r"""
def film(digit):
    rows, labels = [], []
    for name in ("scale, then rotate", "rotate + hue", "hue, backwards"):
        true = render_motion(test, torch.tensor([digit]), MOTIONS[name], seeded(1))
        rows.append(true[0])
        labels.append(f"{name}: true")
        for label, model in {"potential": potential, "free + agreement": free}.items():
            path = follow(model, model.encode(true[:, 0]).mean, MOTIONS[name], names)
            rows.append(model.decode(path).mean[0])
            labels.append(label)
    title = "Composed: the potential flow loses the digit, the free flow keeps it"
    columns = [f"t = {t}" for t in range(T + 1)]
    return plotting.image_grid(torch.stack(rows), labels, columns, title, 0.7)


alt = "Three composed motions of a digit: true, by the potential flow, by the free flow"
plotting.explore(film, alt, digit=[DIGIT, 0, 8, 34])
""", hide=True)
md(r"""
**Figure 6.** Three motions of a test digit from a random start pose. The slider offers other digits.

**Do learned flows know where the order *does* matter?** `digits-five-free-flow` was trained in the same way on five transformations, one at a time. Three of its ten pairs do not commute.
""")
code(r"""
five = load_pretrained("digits-five-free-flow", "cpu")
shown = sequences("digits-five", "test", five.settings).first(40)
five_gaps = gaps_of(five.model, five.model, shown)
commuting = datasets.commutator_norms(FIVE_TRANSFORMATIONS) == 0
groups = {}
for i, j in torch.combinations(torch.arange(5)).tolist():
    kind = "commute" if commuting[i, j] else "do not commute"
    kind += ", with scale" if "scale" in (shown.names[i], shown.names[j]) else ""
    values = (0.5 * (m[i, j] + m[j, i]) for m in (five_gaps.true, five_gaps.learned))
    groups.setdefault(kind, []).append(torch.stack([*values]))
for kind, found in groups.items():
    true, learned = torch.stack(found).mean(0)
    told = f"gap true {true:3.0f}, learned {learned:3.0f}"
    print(f"{kind:<27} {len(found)} pair(s): {told}")
fig = study.order_gap_bars(five_gaps, commuting.tolist())
alt = "True and learned gaps of ten pairs: large where the true one is, or with scale"
title = "The learned order matters where the true one does, and wherever digits grow"
show(fig, title, alt)
""")
md(r"""
**Figure 7.** Gaps of the two orders, true and learned, four frames of each; 40 test images.

**Finding.** Without scale the learned gap is 45 where the truth has 68, and 13 where it has 0. With scale it is 55 on average for pairs that commute, as large as for scale and translate, 59, which do not. So order is learned in part only: where digits grow, all errors are large, and so is this one.

## 9 · A rival that solves for its motion: MSP and the swap test

**Question.** Must a model be *told* $k$? Meta-sequential prediction ([Miyato et al. 2022](https://arxiv.org/abs/2210.05972)) reads its motion off two frames. The code is a matrix $Z$ with $a$ rows, and one matrix $M$ moves it: $Z_{t+1}=MZ_t$. $M$ is no parameter. It is solved for in the forward pass,

$$M=\arg\min_M\;\|MZ_0-Z_1\|^2+\epsilon\,\|M-I\|^2,$$

and trained to carry $Z_0$ to all later frames.

But $M$ has seen frame 1 of *this* film. It may carry more than the motion: a message about the digit. The **swap test** asks. Lend the film an $M$ from another film of the same $k$. If $M$ is the motion and nothing else, the error stays. The control is an $M$ of another $k$.
""")
code(r"""
msp = train("msp", steps=400)
donors = Donors(msp, training, images=200)


def own(batch):
    return metrics.with_own_coefficients(msp, batch)


def other_k(batch):
    return donors(batch.with_k((batch.k + 1) % K))


shown = test.first(60)
still = metrics.equivariance_errors({"x": metrics.persistence}, shown)["x"]
recoded = {"x": lambda batch: metrics.reconstruct(msp, batch)}
floor = metrics.equivariance_errors(recoded, shown)["x"]
swaps = {"floor": [floor[k] / still[k] for k in names]}
changes = {"own M": own, "lent M": donors, "M of another k": other_k}
for name, change in changes.items():
    found = metrics.equivariance_error(msp, with_coefficients(shown, change))
    swaps[name] = [found[k] / still[k] for k in names]
lent = tasks.lent_steps(msp, training)  # the mean M of each k
by_mean = tried(msp, {"lent": lent})
for name, row in swaps.items():
    texts = (f"{k:>8} {x:.2f}" for k, x in zip(names, row, strict=True))
    print(f"{name:<15}" + "".join(texts) + f"    mean {mean(row):.2f}")
print("the mean M of 500 films for each k, error (floor):")
for name, row in by_mean.items():
    print(f"    {name:<13} {row['lent']:.2f} ({row['floor']:.2f})")
""")
md(r"""
**Finding.** With its own $M$ the model is near its floor: 0.68, 0.60 and 0.51, floors 0.67, 0.58 and 0.46. With a lent $M$ it is 0.94, 0.75 and 0.88. That is still clearly below an $M$ of another $k$ (1.12 to 1.90). So $M$ holds the motion, and something of its own film. The mean $M$ of each $k$ is better than a single lent one: 0.79 against a mean of 0.85. With it MSP can be composed too: 0.86 for switching, 0.85 for two at once. Section 7's free cell with agreement, trained for 300 steps and told $k$, has 0.68 and 0.55. Conjecture: one pair of frames fixes $M$ only roughly, in directions that this pair does not show; averaging removes part of that.

## Session 1 in five lines

1. The order of two short motions costs $\varepsilon^2[B,A]$; BCH turns two motions into one.
2. The same holds for learned fields, with the Lie bracket. Gradients are not closed under it.
3. A potential flow that is excellent alone ends far from the encoder's codes. A second flow, and the way back, start from the wrong place.
4. In a 2×2 experiment a free field mends what is composed forwards. The way back needs freedom *and* agreement.
5. A model that reads its motion off frames must pass the swap test.

*A good place to stop. Session 2 needs the first four code cells only.*
""")
