import sys,re,textwrap,math,torch
sys.path.insert(0,"./tests"); sys.path.insert(0,"drafts/10")
import kit, end, importlib
from poflow_lite.course import checks
T=importlib.import_module("wrong_answers.lesson10")
SOL=re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION$", re.DOTALL|re.MULTILINE)
def answer(name,edits=()):
    (source,)=[c.source for c in kit.CELLS if f"def {name}(" in c.source and "### BEGIN SOLUTION" in c.source]
    sol=SOL.search(source).groups()[1]
    if len(edits)==1: edits=(sol,textwrap.indent(edits[0],"    ")+"\n")
    for o,n in zip(edits[::2],edits[1::2]):
        assert o in sol,(name,o); sol=sol.replace(o,n)
    ns={"torch":torch,"math":math}; exec(SOL.sub(lambda m:sol,source),ns); return ns[name]
for n in ("parking","read_motion","how_much"):
    getattr(checks.lesson10,n)(answer(n))
    for hint,*e in T.WRONG[n]:
        try: getattr(checks.lesson10,n)(answer(n,e)); print("PASSED",n,hint,e)
        except checks.CheckFailed as x:
            if hint not in str(x): print("OTHER",n,hint,e,"->",x)
for n,e in T.RIGHT.items(): getattr(checks.lesson10,n)(answer(n,e))
