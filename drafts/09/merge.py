"""Rebuild the notebook with today's prose and keep the outputs of code cells whose source is unchanged."""
import sys, nbformat, copy
new = nbformat.read("drafts/09/dev.ipynb", 4); path = sys.argv[1]; old = nbformat.read(path, 4)
done = [c for c in old.cells if c.cell_type == "code"]
code = [c for c in new.cells if c.cell_type == "code"]
assert len(done) == len(code), (len(done), len(code))
changed = []
for a, b in zip(code, done):
    if a.source != b.source: changed.append(a.source.splitlines()[0])
    a.outputs, a.execution_count = b.outputs, b.execution_count
new.metadata = old.metadata
nbformat.write(new, path); print("changed code:", changed)
