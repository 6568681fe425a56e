import sys, json, re
sys.path.insert(0,"drafts/11")
import nbformat
import lib, s1, s2
GAPS = json.load(open("drafts/11/gaps.json"))
cells = lib.CELLS
ids=set()
for n,c in enumerate(cells):
    c.id=f"l11-{n:02d}"
    for k,v in GAPS.items():
        c.source=c.source.replace("«%s»"%k, v)
    if c.cell_type=="code":
        for l in c.source.splitlines():
            if len(l)>88 and "source_hidden" not in str(c.metadata): print("LONG",n,len(l),l)
            elif len(l)>110 and 'find_spec' not in c.source and 'SOURCE' not in c.source: print("long hidden",n,len(l),l[:60])
out="./notebooks/11-ablations-and-cost.ipynb"
if len(sys.argv)>1: out=sys.argv[1]
nb=nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec":{"display_name":"Python 3","language":"python","name":"python3"}})
nbformat.write(nb,out)
from poflow_lite.course.notebooks import prose_words,_sessions,_prose
j=json.load(open(out))["cells"]
for p in _sessions(j):
    print("words",prose_words(_prose(p)),"code",sum(c["cell_type"]=="code" for c in p), "cells", len(p))
