WRONG = {
    "invariant": [
        ("divided by 4", " / 4", ""),
        ("divided by 4", "range(4)", "range(1, 4)"),
        ("all four quarter turns", "range(4)) / 4", "range(2)) / 2"),
        ("all four quarter turns", "torch.rot90(x, i, (2, 3))", "x.roll(i, -1)"),
        ("not the images", "return f(sum(torch.rot90(x, i, (2, 3)) for i in range(4)) / 4)"),
        ("not the images", "return sum(f(torch.rot90(x, i, (2, 3))).sqrt() for i in range(4)).square() / 16"),
    ],
    "nearest_circle": [
        ("must be real", ".real", ""),
        ("with the inverse", "torch.linalg.inv(vectors)", "vectors.mH"),
        ("with the inverse", "U, _, V = torch.linalg.svd(A)\nreturn U @ V"),
        ("angles in one unit", "math.radians(degrees)", "degrees"),
        ("all sizes 1", "torch.ones_like(angles)", "values.abs()"),
        ("all frequencies integers", "(values.angle() / step).round() * step", "values.angle()"),
        ("already must stay as it is", "return (vectors", "vectors = vectors.roll(1, 1)\n    return (vectors"),
        (
            "nearest integers",
            "(values.angle() / step).round() * step",
            "((values.angle() / step).abs() + 0.2).floor() * values.angle().sign() * step",
        ),
    ],
    "runs_of_bars": [
        ("Rows: runs of 1", "return torch.tensor([0.5, 0.4, 0.05])"),
        ("divide by it", "return torch.tensor([[60.0, 30.0], [50.0, 20.0], [4.0, 0.5]])"),
        ("in column 0", "return torch.tensor([[0.3, 0.5], [0.2, 0.5], [0.0, 0.1]])"),
        ("less than a fifth", "return torch.tensor([[0.04, 0.0], [0.5, 0.1], [0.6, 0.3]])"),
        ("the first row", "return torch.tensor([[0.1, 0.0], [0.5, 0.1], [0.1, 0.0]])"),
    ],
}
RIGHT = {"runs_of_bars": ["return torch.tensor([[0.65, 0.35], [0.4, 0.1], [0.05, 0.01]])"]}
