import nbformat,sys,re,base64
nb=nbformat.read('./notebooks/10-composing-and-generalising.ipynb',4)
n=0;f=0
for i,c in enumerate(nb.cells):
    if c.cell_type=='code':
        n+=1
        for o in c.outputs:
            if o.output_type=='stream': print(f'--[{i}/{n}]',o.text)
            elif 'data' in o:
                d=o['data']; print(f'--[{i}/{n}] data', str(d.get('text/plain',''))[:300])
                m=re.search(r'base64,([A-Za-z0-9+/=]+)',d.get('text/html',''))
                if m: f+=1; open(f'drafts/10/figs/nb-{f:02d}.png','wb').write(base64.b64decode(m[1]))
