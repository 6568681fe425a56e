WRONG = {
    "hue_distance": [
        ("never negative", "return a - b"),
        ("no seam", "return (a - b).abs()"),
        ("40", "return (a - b) % 360"),
        ("modulo", "(a - b) % 360", "(a - b).abs()"),
        ("modulo", "(a - b) % 360", "(a - b).abs()", "360 - difference", "(360 - difference).abs()"),
        ("degrees", "360 - difference)", "360 - difference) / 57.3"),
        ("expected shape", "360 - difference)", "360 - difference).mean()"),
        ("40", "return (a % 180 - b % 180).abs()"),
    ],
    "winding_number": [
        ("expected shape", "angles.sum()", "angles"),
        ("One turn is 1", " / (2 * torch.pi)", ""),
        ("One turn is 1", "return torch.atan2(path[:, 1], path[:, 0]).diff().sum() / (2 * torch.pi)"),
        ("Anticlockwise", "roll(-1, 0)", "roll(-1, 1)"),
        ("Anticlockwise", "roll(-1, 0)", "roll(1, 0)"),
        ("other way round", "angles.sum()", "angles.abs().sum()"),
        ("beside the origin", "following = ", "path = path - path.mean(0)\n    following = "),
        (
            "more than 90",
            "torch.atan2(cross, (path * following).sum(1))",
            "torch.atan(cross / (path * following).sum(1))",
        ),
        (
            "Round twice",
            "return (angles.sum() / (2 * torch.pi)).round()",
            "return angles.sum().sign() * (angles.sum().abs() > 3)",
        ),
    ],
    "faster": [
        ("four ratios", "[0.32, 0.27, 0.44, 0.75]", "[[0.32, 0.27, 0.44, 0.75]]"),
        ("divide by", "[0.32, 0.27, 0.44, 0.75]", "[32.0, 27.0, 44.0, 75.0]"),
        ("second speed", "[0.32, 0.27, 0.44, 0.75]", "[0.75, 0.44, 0.27, 0.32]"),
        ("order of the speeds", "0.44, 0.75", "0.75, 0.44"),
        ("same speed", "0.44, 0.75", "0.28, 0.30"),
    ],
}
RIGHT = {
    "hue_distance": ["return ((a - b + 180) % 360 - 180).abs()"],
    "winding_number": [
        "a = torch.atan2(path[:, 1], path[:, 0])\n"
        "turns = (a.roll(-1) - a + torch.pi) % (2 * torch.pi) - torch.pi\n"
        "return turns.sum() / (2 * torch.pi)"
    ],
    "faster": ["return torch.tensor([0.35, 0.29, 0.4, 0.7])"],
}
