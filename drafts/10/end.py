from kit import md, code, solution, answer

md(r"""
## Summary

1. What the order of two motions costs is their commutator, for matrices and for fields.
2. Composing needs flows that stay right off the path of training. A free field is the larger cause; agreement is what the way back needs.
3. A swap test tells a motion from a message.
4. Error, floor and their ratio belong together: coding and moving fail in different tasks.
5. A verdict needs pairs of seeds, an interval, an operator chosen on validation images, and a look at every fallback.

## Common mistakes

- Blaming one of two causes that were changed together.
- Calling a large latent distance a fault without an intervention.
- Reading a low error on letters as good motion, or a high one as bad motion, without the floor.
- Letting a model that reads its motion off frames predict the film that it has seen.
- Running the velocity backwards, $z-v(z)$, and calling it the inverse.

## Exercises

**Exercise 1 · Warm-up: parking** (2 points). A car that can only roll and steer still moves sideways: roll, steer, roll back, steer back. `parking(A, B, eps)` returns the matrix of four legs, each of length ε: first along $A$, then along $B$, then back along $A$, then back along $B$. Later legs stand left.

<details><summary>Hint 1</summary>Four calls of torch.matrix_exp.</details>

<details><summary>Hint 2</summary>Going back along A is exp(−εA). The leg that comes first stands at the right end.</details>
""")
solution("parking", r"""
def parking(A, B, eps):
    ### BEGIN SOLUTION
    a, b = torch.matrix_exp(eps * A), torch.matrix_exp(eps * B)
    return torch.linalg.inv(b) @ torch.linalg.inv(a) @ b @ a
    ### END SOLUTION
""", 2)
md(r"""
**Exercise 2 · Derivation: symmetric steps** (4 points). (a) Use BCH to show that the parking manoeuvre of Exercise 1 is $I+\varepsilon^2[B,A]+O(\varepsilon^3)$. (b) Strang's step is $S(\varepsilon)=e^{\varepsilon A/2}e^{\varepsilon B}e^{\varepsilon A/2}$. Show $S(-\varepsilon)=S(\varepsilon)^{-1}$, and conclude that $\log S(\varepsilon)$ has no term in $\varepsilon^2$. (c) Two rotations of the plane have the same speed $\omega$ and different centres, a distance $c$ apart. What motion is their commutator, and how fast is it?

<details><summary>Hint 1</summary>(a) Exchange A and B in the logarithm of the product: which terms change their sign?</details>

<details><summary>Hint 2</summary>(c) In homogeneous coordinates the generators differ by a shift only.</details>
""")
answer("symmetric", r"""
**Your derivation.**

<details><summary>Solution</summary>

(a) $\log e^{\varepsilon B}e^{\varepsilon A}=\varepsilon(A+B)+\tfrac{\varepsilon^2}2[B,A]+O(\varepsilon^3)$, and $\log e^{-\varepsilon B}e^{-\varepsilon A}=-\varepsilon(A+B)+\tfrac{\varepsilon^2}2[B,A]+O(\varepsilon^3)$. The first-order terms of the two commute with each other, so the logarithm of the product is their sum, $\varepsilon^2[B,A]+O(\varepsilon^3)$. Exponentiate. (b) $S(-\varepsilon)S(\varepsilon)=e^{-\varepsilon A/2}e^{-\varepsilon B}e^{-\varepsilon A/2}e^{\varepsilon A/2}e^{\varepsilon B}e^{\varepsilon A/2}=I$. Hence $\log S(-\varepsilon)=-\log S(\varepsilon)$: an odd function has no even terms. (c) $G_2=G_1+\omega P$, where $P$ is a shift by $c$ at a right angle to the line of the centres. $[G_1,P]$ is that shift turned by 90°, times $\omega$. So $[G_1,G_2]=\omega[G_1,P]$ is a translation along the line of the centres, of speed $\omega^2c$.
</details>
""", 4)
md(r"""
**Exercise 3 · Implementation: read a motion off two frames** (4 points). `read_motion(before, after, eps)` takes codes $Z_0,Z_1$, $(B,a,m)$, and returns MSP's matrices, $(B,a,a)$:

$$M=\arg\min_M\|MZ_0-Z_1\|^2+\epsilon\,\|M-I\|^2 .$$

No loop over the batch, no iteration.

<details><summary>Hint 1</summary>Set the derivative with respect to M to 0: M stands left of a symmetric matrix.</details>

<details><summary>Hint 2</summary>M (Z₀Z₀ᵀ + εI) = Z₁Z₀ᵀ + εI. torch.linalg.solve solves from the left: transpose.</details>
""")
solution("read_motion", r"""
def read_motion(before, after, eps):
    ### BEGIN SOLUTION
    eye = eps * torch.eye(before.shape[1], dtype=before.dtype)
    gram = before @ before.mT + eye
    target = after @ before.mT + eye
    return torch.linalg.solve(gram, target.mT).mT
    ### END SOLUTION
""", 4)
md(r"""
**Exercise 4 · Experiment: how much agreement?** (4 points). Section 7 had $\lambda_a=0$ and $0.1$. Predict what $\lambda_a=1$ does to the distance from the codes, to the way back, and to single motions. Train the *free* cell with it and compare.

<details><summary>Hint 1</summary>Section 7's `train`, `tried` and section 5's `away` do all of the work. Session 1 must have been run.</details>

<details><summary>Hint 2</summary>For λ = 0 and 0.1 the models are in `grid`, their rows in `cause`.</details>
""")
solution("how_much", r"""
### BEGIN SOLUTION
strong = train(field="free", consistency=1.0)
rows = {0.0: (grid["free"], cause["free"])}
rows[0.1] = grid["free + agreement"], cause["free + agreement"]
rows[1.0] = strong, tried(strong, {"flow": strong})
for weight, (model, row) in rows.items():
    back, single = (row[task]["flow"] for task in ("backwards", "single"))
    far = away(model).mean()
    print(f"λ = {weight}: away {far:.2f}, back {back:.2f}, single {single:.2f}")
### END SOLUTION
""", run=True)
md(r"""
**Exercise 4, your numbers.** Return a $3\times3$ tensor. Rows: $\lambda_a=0$, $0.1$, $1$. Columns: away ÷ way (mean over $k$), error ÷ no motion of *backwards*, of *single*.
""")
solution("how_much", r"""
def how_much():
    ### BEGIN SOLUTION
    return torch.tensor([[0.68, 1.64, 0.60], [0.27, 0.75, 0.63], [0.16, 0.62, 0.66]])
    ### END SOLUTION
""", 4)
md(r"""
**Exercise 5 · Open: falsify a row** (4 points). Choose a row of Figure 9 that a rival wins, or that is a tie. Name one cause. Write down a prediction *with a number* that would be wrong if the cause were another one. Then design the experiment with two arms that differ in this cause alone, and run it, reduced, on at least two seeds.

<details><summary>Hint 1</summary>The coding and moving columns tell you where to look.</details>

<details><summary>Hint 2</summary>Change one option of a recipe: `autoencoding`, `consistency`, `start`, `field`, `beta`.</details>
""")
answer("falsify", "**Your answer.**", 4)
md(r"""
## Quiz

**1.** Two flows have bracket 0 everywhere. What follows for switching and for two at once?
<details><summary>Answer</summary>
In continuous time every order, every interleaving and the sum of the velocities end at the same point. With steps of a whole frame this holds up to the error of the steps.
</details>

**2.** "Encoded anew" at the switch lowers the error of the second flow. Which explanation does that rule out?
<details><summary>Answer</summary>
That the first flow had lost the picture, or that the second cannot move a picture in that pose. Only the place of the latent was wrong.
</details>

**3.** A free flow without agreement ends as far from the codes as the motion is long, and switches well. What does that say about the distance?
<details><summary>Answer</summary>
It is no sufficient cause. What counts is what the second flow does at such places, which the intervention measures.
</details>

**4.** MSP predicts its own films at its floor. Why is the swap test needed?
<details><summary>Answer</summary>
M was read off frame 1 of the same film. It may carry what that film looks like, and not only how it moves.
</details>

**5.** Two models have errors 0.62 and 0.60 on sprites, and floors 0.61 and 0.59. What have you learned about their flows?
<details><summary>Answer</summary>
Nothing bad. Both are at the price of coding. The difference is a difference of floors.
</details>
""")
md(r"""
## Further reading

* Song, Keller, Sebe & Welling, [Flow Factorized Representation Learning](https://arxiv.org/abs/2309.13167), NeurIPS 2023. Switching and superposing, shown in pictures; here with numbers.
* Miyato, Koyama & Fukumizu, [Unsupervised Learning of Equivariant Structure from Sequences](https://arxiv.org/abs/2210.05972), NeurIPS 2022. MSP; its *swapped* test is ours.
* Hall, *Lie Groups, Lie Algebras, and Representations*, Springer 2015. One-parameter groups and the BCH formula.
* Hairer, Lubich & Wanner, *Geometric Numerical Integration*, Springer 2006. Lie–Trotter, Strang, and why symmetric steps pay.
* Higgins et al., [Towards a Definition of Disentangled Representations](https://arxiv.org/abs/1812.02230), 2018. Groups that act on parts of a representation.
* Hayashi, Koyama & Guerreiro, [Inter-environmental World Modeling for Continuous and Compositional Dynamics](https://arxiv.org/abs/2503.09911), 2025. A Lie group moves the latents of a world model; actions compose by construction.
* Farid et al., [What Drives Compositional Generalization in Visual Generative Models?](https://arxiv.org/abs/2510.03075), 2025. Controlled experiments, one cause at a time, on images and video.
""")
md(r"""
<details><summary><b>Notes for teachers</b></summary>

**Timing.** Session 1, 90 minutes: sections 1 to 3, 30; 4 to 6, 25; 7 and 8, 20; 9, 15. Session 2, 90 minutes: 10 and 11, 30; 12, 15; 13 and 14, 20; 15 and 16, 15; discussion of Exercise 5, 10.

**Misconceptions.** "Commuting transformations have commuting flows by themselves": the gaps of section 3. "Invertible means that it can go back from any picture": only from the end of its own path. "Agreement is why it composes": the cells of section 7. "A low error on letters is good motion": the floor. "Ours is always its flow": section 14.

**Marking.** Checks award all or nothing. Exercise 2: (a) 2, (b) 1, (c) 1. Exercise 5: one cause only 1, a prediction that could fail 1, two arms that differ in the cause alone 1, seeds and an honest verdict 1.
</details>
""")
md(r"""
**Next:** [11 · Ablations and cost](11-ablations-and-cost.ipynb). Field, agreement, penalty, prior, density: which pieces matter, and what does each cost?
""")
