import sys, time, importlib, os
sys.path.insert(0,"drafts/10"); os.environ["OMP_NUM_THREADS"]="1"
import torch; torch.set_num_threads(1)
import kit
from poflow_lite.plotting import figures, sliders
import base64
n=[0]
def _show(kind,data,alt,width=None):
    n[0]+=1; open(f"drafts/10/figs/{sys.argv[1]}-{n[0]:02d}.png","wb").write(data); print(f"  [fig {n[0]}] {alt}")
figures._show=_show
def explore(draw,alt,start=None,labels=None,play=None,**choices):
    first={k:(list(v.values())[0] if isinstance(v,dict) else v[0]) for k,v in choices.items()}
    f=draw(**first); _show("image/png",figures.png(f),alt)
import poflow_lite.plotting as P; P.explore=explore
import IPython.display as D
D.display=lambda x: print(getattr(x,"data",x))
os.makedirs("drafts/10/figs",exist_ok=True)
for m in sys.argv[2].split(","): importlib.import_module(m)
ns={"__name__":"lesson"}
if os.environ.get("FAKE"):
    import json, poflow_lite.course as C
    real=C.recorded
    C.recorded=lambda n: json.load(open(os.environ["FAKE"])) if n=="digits-generalisation.json" else real(n)
FROM=int(os.environ.get("FROM","0"))
tot=0
skip=set(sys.argv[3].split(",")) if len(sys.argv)>3 else set()
i=0
for c in kit.CELLS:
    if c.cell_type!="code": continue
    i+=1
    if i==1 or (5<i<=FROM): continue
    src=c.source
    if any(len(l)>88 for l in src.splitlines()): print("LONG",i,[l for l in src.splitlines() if len(l)>88])
    nl=sum(1 for l in src.splitlines() if l.strip()); 
    if nl>(60 if "hide-input" in c.metadata.get("tags",[]) else 25): print("LINES",i,nl)
    b=time.process_time(); print(f"--- code {i}",flush=True)
    try: exec(compile(src.replace("### BEGIN SOLUTION","").replace("### END SOLUTION",""),f"<cell {i}>","exec"),ns)
    except Exception as e:
        import traceback; traceback.print_exc(); 
        if "-k" not in sys.argv: break
    d=time.process_time()-b; tot+=d; print(f"    {d:.1f}s",flush=True)
print("total",tot)
import pickle
