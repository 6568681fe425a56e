WRONG = {
    "posterior_of_k": [
        ("expected shape", "torch.softmax(log_p + prior.log(), 1)", "(log_p + prior.log()).logsumexp(1)"),
        ("normalise over k", ", 1)", ", 0)"),
        ("normalise over k", "torch.softmax(log_p + prior.log(), 1)", "log_p.exp() * prior"),
        ("the posterior is the prior", " + prior.log()", ""),
        ("the posterior is the prior", "prior.log()", "prior"),
        ("the posterior is the prior", "+ prior", "- prior"),
        ("proportional to p(x | k)", "log_p +", "2 * log_p +"),
        ("proportional to p(x | k)", "log_p +", "0 * log_p +"),
        ("underflow", "joint = log_p.exp() * prior\nreturn joint / joint.sum(1, keepdim=True)"),
        ("exactly 0", "prior.log()", "(prior + 1e-6).log()"),
    ],
    "leave_one_out": [
        ("the mean over the S samples", ".mean(0)", ""),
        ("sums to 0", "(losses - others)", "losses.softmax(0)", " - logits.softmax(0)", ""),
        ("losses are equal", "(losses - others)", "losses"),
        ("losses are equal", "(len(losses) - 1)", "len(losses)"),
        ("without itself", "(losses.sum() - losses) / (len(losses) - 1)", "losses.mean()"),
        ("the signs", "losses - others", "others - losses"),
        ("1/S", ".mean(0)", ".sum(0)"),
        ("no bias", "losses - others", "(losses - others).abs()"),
    ],
    "too_hot": [
        ("expected shape", "return torch.tensor([[0.99, 0.45], [0.68, 1.14]])"),
        ("shares", "return torch.tensor([[99.0, 0.45, 99.0], [68.0, 1.14, 34.0]])"),
        ("divided by that of no motion", "return torch.tensor([[0.99, 450.0, 0.99], [0.68, 1140.0, 0.34]])"),
        ("the first row", "return torch.tensor([[0.68, 1.14, 0.34], [0.99, 0.45, 0.99]])"),
        ("clearly larger", "return torch.tensor([[0.99, 0.45, 0.99], [0.99, 0.46, 0.98]])"),
        ("less sure", "return torch.tensor([[0.99, 0.45, 0.90], [0.68, 1.14, 0.95]])"),
    ],
}
RIGHT = {"leave_one_out": (" - logits.softmax(0)", "")}  # the weights sum to 0, so that q drops out
