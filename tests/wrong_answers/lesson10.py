LEGS = "return torch.linalg.inv(b) @ torch.linalg.inv(a) @ b @ a"
EXPONENTIALS = "a, b = torch.matrix_exp(eps * A), torch.matrix_exp(eps * B)"
ROW = "[0.68, 1.64, 0.60], [0.27, 0.75, 0.63], [0.16, 0.62, 0.66]"
WRONG = {
    "parking": [
        ("every leg goes back", LEGS, "return b @ a @ b @ a"),
        ("every leg goes back", "torch.linalg.inv(b) @ torch.linalg.inv(a) @ ", ""),
        ("The other sign", LEGS, "return torch.linalg.inv(a) @ torch.linalg.inv(b) @ a @ b"),
        ("Small legs leave", LEGS, "return torch.linalg.inv(a) @ torch.linalg.inv(b) @ b @ a"),
        ("exact", EXPONENTIALS, "a, b = torch.eye(len(A)) + eps * A, torch.eye(len(B)) + eps * B"),
        ("Small legs leave", EXPONENTIALS, "a, b = torch.matrix_exp(eps / 2 * A), torch.matrix_exp(eps / 2 * B)"),
        ("Small legs leave", EXPONENTIALS, "a, b = torch.matrix_exp(eps * A.T), torch.matrix_exp(eps * B.T)"),
        ("one matrix of the same size", LEGS, LEGS + "[0]"),
    ],
    "read_motion": [
        ("pulls M to I", "after @ before.mT + eye", "after @ before.mT"),
        ("not transposed", "target.mT).mT", "target.mT)"),
        ("not transposed", "torch.linalg.solve(gram, target.mT).mT", "torch.linalg.solve(gram, target)"),
        ("not transposed", "target = after @ before.mT", "target = before @ after.mT"),
        ("ε on both sides", "eye = eps *", "eye = eps**2 *"),
        ("ε on both sides", "eye = eps *", "eye = 2 * eps *"),
        (
            "expected shape",
            "before @ before.mT",
            "before.mT @ before",
            "before.shape[1]",
            "before.shape[2]",
            "after @ before.mT",
            "after.mT @ before",
        ),
        ("pulls M to I", "gram = before @ before.mT", "gram = (before @ before.mT).mean(0)"),
        (
            "not transposed",
            "return torch.linalg.solve(gram, target.mT).mT",
            "return torch.eye(before.shape[1], dtype=before.dtype).expand(len(before), -1, -1)",
        ),
    ],
    "how_much": [
        ("A row for each weight", f"[{ROW}]", "[[0.68, 1.64, 0.60], [0.27, 0.75, 0.63]]"),
        ("All numbers are ratios", "1.64", "1640.0"),
        ("another seed", "1.64", "float('nan')"),
        ("from row to row", ROW, "[0.16, 0.62, 0.66], [0.27, 0.75, 0.63], [0.68, 1.64, 0.60]"),
        ("second column", ROW, "[0.68, 0.60, 1.64], [0.27, 0.63, 0.75], [0.16, 0.66, 0.62]"),
        ("falls clearly", "1.64", "0.70"),
        ("below 0.9", "0.63", "1.30"),
        ("does not make single motions better", "0.66", "0.40"),
    ],
}
RIGHT = {
    "parking": (
        LEGS,
        "legs = [torch.matrix_exp(s * eps * M) for s, M in ((-1, B), (-1, A), (1, B), (1, A))]\n"
        "    return torch.linalg.multi_dot(legs)",
    ),
    "read_motion": ("return torch.linalg.solve(gram, target.mT).mT", "return target @ torch.linalg.inv(gram)"),
}
