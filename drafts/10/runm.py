from lib import *
for steps,opt in ((400,dict(autoencoding=0.0)),(400,dict(rows=4)),(800,dict()),(400,dict(start="fixed")),(400,dict(start="fixed",autoencoding=0.0))):
    b=time.process_time(); 
    fixed=opt.get("start")=="fixed"
    te,tr=test,training
    if fixed:
        s_=replace(RECIPE,start="fixed"); tr,te=(sequences("digits",x,s_) for x in ("train","test")); 
        import lib; lib.training=tr
    else:
        import lib; lib.training=tr
    m=train("msp",steps,0,**opt); sec=time.process_time()-b
    s=te.first(60); st=equivariance_errors({"still":persistence},s)["still"]
    print(steps,opt,f"{sec:.0f}")
    d=Donors(m,tr,images=200)
    def wrong(bb):
        return d(bb.with_k((bb.k+1)%3))
    for n,ch in {"own":lambda bb: with_own_coefficients(m,bb),"lent":d,"wrong":wrong}.items():
        e=equivariance_error(m,with_coefficients(s,ch)); print("  ",n,{k:round(e[k]/st[k],2) for k in e})
    mean_=lent_steps(m,tr)
    e=equivariance_error(with_operator(m,mean_),s); print("   mean",{k:round(e[k]/st[k],2) for k in e},flush=True)
