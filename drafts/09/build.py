"""python build.py OUT [s1|s2]: build the lesson. dev=True adds nothing; partial notebooks for development."""
import sys, nbformat, importlib
sys.path.insert(0, "drafts/09")
import kit
from nbformat.v4 import new_notebook
out = sys.argv[1]; parts = sys.argv[2:] or ["s1", "s2"]
if "s1" in parts: import s1
else:
    import s1  # session 2 stands on the set-up of session 1: keep its first five cells
    del kit.CELLS[5:]
if "s2" in parts: import s2
nb = new_notebook(cells=kit.CELLS, metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3"}})
nbformat.write(nb, out); print(len(kit.CELLS), "cells")
