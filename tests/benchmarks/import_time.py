"""How long the package takes to import beside torch alone: ``python tests/benchmarks/import_time.py``.

Median of alternating fresh processes, so that a busy machine slows both alike.
"""

import statistics
import subprocess
import sys
import time

seconds: dict[str, list[float]] = {"import torch": [], "import poflow_lite": []}
for _ in range(9):
    for statement, measured in seconds.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        measured.append(time.perf_counter() - began)
torch_alone, package = (statistics.median(measured) for measured in seconds.values())
print(f"torch {torch_alone:.2f} s, poflow_lite {package:.2f} s, ratio {package / torch_alone:.2f}")
