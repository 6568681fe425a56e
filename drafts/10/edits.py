import nbformat
E_=[
("""            dots(axis, e.error, above, i)
""","""            lent = {} if e.operator == "flow" else {"mfc": "none"}
            dots(axis, e.error, above, i, **lent)
"""),
("""title = "Beyond its interval: " + ", ".join(f"{k} {n}" for k, n in proven.items())
""","""effects = ", ".join(f"{name} {n}" for name, n in proven.items())
title = f"Effects whose interval leaves out 0: {effects}"
"""),
("Of 33 such intervals one or two leave out 0 by chance.","At 95 %, one interval in twenty leaves out 0 by chance."),
("bars are standard deviations over seeds. At the right","bars are standard deviations over seeds; hollow: not moved by its own flow (section 14). At the right"),
]
for f in ("session1","session1b","session2"):
    p=f"drafts/10/{f}.py"; s=open(p).read()
    for a,b in E_: s=s.replace(a,b)
    open(p,"w").write(s)
p='./notebooks/10-composing-and-generalising.ipynb'
nb=nbformat.read(p,4)
for c in nb.cells:
    for a,b in E_: c.source=c.source.replace(a,b)
nbformat.write(nb,p)
