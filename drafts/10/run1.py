from lib import *
steps=int(sys.argv[1]); seed=int(sys.argv[2])
for label,(model,opt) in {**{n:("flow-factorized",o) for n,o in CELLS.items()},"free-flow recipe":("free-flow",{}),"free-flow+a":("free-flow",{"consistency":0.1}),"free, autoenc .5":("flow-factorized",dict(field="free",consistency=0.0,autoencoding=0.5)),"gradient, autoenc .5":("flow-factorized",dict(field="gradient",consistency=0.0,autoencoding=0.5)),"msp":("msp",{})}.items():
    b=time.process_time(); m=train(model,steps,seed,**opt); sec=time.process_time()-b
    torch.save(m.state_dict(), f"drafts/10/m-{label.replace(' ','_').replace(',','')}-{steps}-{seed}.pt")
    b=time.process_time()
    if model!="msp":
        rows=measure(m,{"flow":m})
        print(f"== {label} {sec:.0f}s, eval {time.process_time()-b:.0f}s", {t:" ".join(f"{v:.2f}" for v in r.values()) for t,r in rows.items()})
        print("   away",[round(x,2) for x in mismatch(m)], {n:round(second_half(m,br),2) for n,br in BRIDGES.items()}, "back own",end=" ")
        try: print(round(way_back(m,True),2), "code", round(way_back(m,False),2),flush=True)
        except Exception as e: print(repr(e)[:200],flush=True)
    else:
        rows=measure(m,{"lent":lent_steps(m,training)})
        print(f"== {label} {sec:.0f}s", {t:" ".join(f"{v:.2f}" for v in r.values()) for t,r in rows.items()})
        s=test.first(60); st=equivariance_errors({"still":persistence},s)["still"]
        for n,ch in {"own":lambda bb: with_own_coefficients(m,bb),"lent":Donors(m,training,images=200)}.items():
            e=equivariance_error(m,with_coefficients(s,ch)); print("  ",n,{k:round(e[k]/st[k],2) for k in e})
