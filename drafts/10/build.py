"""python build.py [w]: count, and with w write the notebook; outputs of cells whose source is unchanged are kept."""
import sys, re, os
sys.path.insert(0,"drafts/10")
import kit, session1, session1b, session2, end
import nbformat
from nbformat.v4 import new_notebook
from statistics import median
from poflow_lite.course.notebooks import _METADATA, prose_words, _sessions
path="./notebooks/10-composing-and-generalising.ipynb"
for i,c in enumerate(kit.CELLS): c["id"]=f"l10-{i:03d}"
nb=new_notebook(cells=kit.CELLS, metadata=dict(_METADATA))
if len(sys.argv)>1:
    old=nbformat.read(path,4); kept={c.source:c for c in old.cells if c.cell_type=="code"}
    missing=[]
    for n,c in enumerate((c for c in kit.CELLS if c.cell_type=="code"),1):
        if c.source in kept: c["outputs"]=kept[c.source].outputs; c["execution_count"]=n
        else: missing.append(n)
    print("code cells without outputs:",missing)
    if "poflow" in old.metadata and not missing: nb.metadata["poflow"]=old.metadata["poflow"]
    nbformat.write(nb,path)
for part in _sessions([{"cell_type":c.cell_type,"source":c.source,"metadata":c.metadata} for c in kit.CELLS]):
    print("words",prose_words(" ".join(c["source"] for c in part if c["cell_type"]=="markdown")),"code",sum(c["cell_type"]=="code" for c in part),"cells",len(part))
for i,c in enumerate(kit.CELLS):
    if c.cell_type=="code" and 'find_spec("poflow' not in c.source:
        for l in c.source.splitlines():
            if len(l)>88: print("LONG",i,len(l),l)
        n=sum(1 for l in c.source.splitlines() if l.strip())
        if n>(60 if "hide-input" in c.metadata.get("tags",[]) else 25): print("LINES",i,n)
    for m in re.findall("§[A-Z]+§",c.source): print("OPEN",i,m)
    if "«…»" in c.source: print("gap",i,c.source.count("«…»"))
L=[sum(1 for l in c.source.splitlines() if l.strip()) for c in kit.CELLS if c.cell_type=="code" and "hide-input" not in c.metadata.get("tags",[])]
print("median lines",median(L))
