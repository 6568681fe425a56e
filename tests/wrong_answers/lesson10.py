DIFFERENCES = """turn = lambda f, d: (f(z + 1e-5 * d) - f(z - 1e-5 * d)) / 2e-5
return turn(w, v(z)) - turn(v, w(z))"""
UNSCALED = """one, other = z + 0.01 * v(z), z + 0.01 * w(z)
return one + 0.01 * w(one) - other - 0.01 * v(other)"""
STRANG = "first(second(first(z, h / 2), h), h / 2)"
WRONG = {
    "bracket": [
        ("mind the sign", "return derivative", "return -derivative", "[1] - ", "[1] + "),
        ("subtracted", "[1] - ", "[1] + "),
        ("subtracted", " - derivative(v, z, w(z))[1]", ""),
        ("not w(v) - v(w)", "return w(v(z)) - v(w(z))"),
        ("jvp, not vjp", "functional.jvp", "functional.vjp"),
        ("how w changes", UNSCALED),
        ("a vector at each point", "z, w(z))[1]", "z, w(z))[1].mean(0)", "w, z, v(z))[1]", "w, z, v(z))[1].mean(0)"),
        ("how w changes", "return v(z) - w(z)"),
        ("how w changes", "[1]", "[1] / 2"),
    ],
    "strang": [
        ("Lie-Trotter", STRANG, "second(first(z, h), h)"),
        ("Lie-Trotter", STRANG, "first(second(z, h), h)"),
        ("halves of the first", STRANG, "second(first(z, h / 2), h)"),
        ("halves of the first", "h / 2", "h"),
        ("halves of the first", ", h)", ", h / 2)"),
        ("Lie-Trotter", STRANG, "second(first(first(z, h / 2), h / 2), h)"),
        ("time ÷ steps", "range(steps)", "range(steps + 1)"),
        ("time ÷ steps", "time / steps", "time"),
        ("does `steps` matter", "h = time", "steps = 1\n    h = time"),
        ("retraces itself", STRANG, "0.5 * (first(second(z, h), h) + second(first(z, h), h))"),
    ],
    "follow_phases": [
        ("clock of its own", "path.append(step(path[-1], t,", "path.append(step(path[-1], len(path) - 1,"),
        ("t = 0, 1, 2", "path[-1], t,", "path[-1], t + 1,"),
        ("where the first has ended", "step(path[-1],", "step(path[-1] if t else z,"),
        ("3 steps and the start", "path = [z]", "path = [z, z]"),
        ("3 steps and the start", "stack(path", "stack(path[1:]"),
        ("clock of its own", "in segments for", "in segments[::-1] for"),
        ("B, 4, d", "(path, 1)", "(path, 0)"),
        ("as they are", "t, y))", "t, y / y.sum()))"),
        ("where the first", "t, y))", "t, segments[0][0]))"),
    ],
    "trial_score": [
        ("true", "true[:, :, :1])", "predicted[:, :, :1])"),
        ("weighs alike", "(error / still).mean()", "error.sum() / still.sum()"),
        ("image by image", ".flatten(1).sum(1)", ".flatten(2).sum(2)"),
        ("not squared", ".abs()", ".square()"),
        ("another norm", ".abs()", ".square()", "(error / still)", "(error / still).sqrt()"),
        ("Frame 0", "[:, :, 1:]", ""),
        ("absolute", ".abs()", "", "(error / still)", "(error / still).abs()"),
        ("one number", ".mean()", ""),
        ("score 1", ".mean()", ".sum()"),
        ("score 1", "(error / still)", "error"),
        ("score 1", "return (error", "return 1 - (error"),
    ],
}
RIGHT = {
    "bracket": (DIFFERENCES,),
    "strang": (STRANG, "second(first(second(z, h / 2), h), h / 2)"),
}
