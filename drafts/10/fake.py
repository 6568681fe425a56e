import json,copy,random
r=json.load(open("./data/results/digits-generalisation.json"))
random.seed(0)
def clone(c,model,scale=1.0,back=None):
    c=copy.deepcopy(c); c["model"]=model
    for t in c["errors"].values():
        for op in t:
            if op=="no motion": continue
            for m in t[op]: t[op][m]*=scale*(1+0.02*random.random())
    return c
new=[]
for c in r["cells"]:
    new.append(c)
    if c["model"]=="flow-factorized": new+= [clone(c,"gradient"),clone(c,"gradient + agreement",1.03)]
    if c["model"]=="free + agreement": new+=[clone(c,"free",1.02),clone(c,"free-flow",.9)]
    if c["model"]=="factor-vae": new.append(clone(c,"msp",1.1))
for c in new: c["validation"]=c["errors"]
r["cells"]=new
json.dump(r,open("drafts/10/fake.json","w"))
