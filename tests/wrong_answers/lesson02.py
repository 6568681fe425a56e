PAIRWISE = """root = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
squared = (covariance / root[..., None] / root[..., None, :]).square()
return -0.5 * torch.log1p(-squared.tril(-1)).sum((-2, -1))"""
WRONG = {
    "gaussian_total_correlation": [
        ("divide the variances out", "variances.log().sum(-1)", "0"),
        ("sign", "0.5 *", "-0.5 *"),
        ("factor ½", "0.5 *", ""),
        ("divide the variances out", "variances.log()", "variances.sqrt().log()"),
        ("expected shape", "return 0.5 * (", "return 0.5 * torch.sum("),
        ("factor ½", "0.5 *", "0.5 / len(covariance) *"),
        ("pair by pair", PAIRWISE),
    ],
    "udr": [
        ("absolute value", ".abs()", ""),
        ("divided by the number", " / sum(R.shape)", ""),
        ("divided by the number", "columns.sum() + rows.sum()", "columns.sum()"),
        ("correlations, not covariances", "torch.corrcoef", "199 * torch.cov"),
        ("square of the best correlation", "R.amax(0).square()", "R.amax(0)"),
        ("square of the best correlation", " / R.sum(0)", "", " / R.sum(1)", ""),
        ("match each with its best partner", "R = ", "R = torch.eye(a.shape[1]).to(a) * "),
        ("which axis is which", "sum(R.shape)", "(2 * a.shape[1])"),
        ("one number", "columns.sum() + rows.sum()", "columns + rows"),
        ("A code agrees with itself", "[a, b], 1).T", "[a, b], 1)"),
    ],
    "one_or_both": [
        ("expected shape", "torch.tensor([one, both])", "torch.tensor(one)"),
        ("rows swapped", "[one, both]", "[one, [0.01 + m for m in one]]"),
        ("section 6's", "[one, both]", "[both, one]"),
        ("lies between 0 and 1", "[one, both]", "[[1.0, 2, 3, 4, 5, 6, 7, 44], both]"),
        ("Eight equal numbers", "[one, both]", "[[sum(one) / 8] * 8, [sum(both) / 8] * 8]"),
        ("and trained?", "[one, both]", "[one, [m / 20 for m in both]]"),
    ],
}
