import nbformat, re, json, glob, sys
nb=nbformat.read(sys.argv[1],4)
outs=""
for c in nb.cells:
    if c.cell_type=="code":
        outs+=c.source+"\n"
        for o in c.outputs:
            outs+= o.get("text","") or re.sub(r"base64,[A-Za-z0-9+/=]+","",str(o.get("data",{})))
pool=set(re.findall(r"\d+(?:[.,]\d+)*", outs.replace(",","") ))|set(re.findall(r"\d+(?:[.,]\d+)*", outs))
for i,c in enumerate(nb.cells):
    if c.cell_type!="markdown": continue
    t=re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<details>.*?</details>","",c.source,flags=re.S)
    miss=[n for n in re.findall(r"\d+(?:[.,]\d+)*", t) if n not in pool and n.replace(",","") not in pool]
    if miss: print(i, miss, c.source[:60].replace("\n"," "))
