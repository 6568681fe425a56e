"""Tables."""
def write_tables(result, out):
    lines = []
    for cell in result["cells"]:
        best = {name: [round(v) for v in op["equivariance_error"].values()] for name, op in cell["operators"].items()}
        lines.append(f"{cell['model']} {cell['variant']} {cell['seed']} {best}")
    return "\n".join(lines)
