from lib import *
free=load_pretrained("digits-free-flow","cpu").model
up=sequences("digits","test",replace(RECIPE,start="fixed")).first(120)
turn=each_alone(test)[1]
true=render_motion(up,torch.arange(120),turn,seeded())
x=true[:,0]; n=0.2*torch.randn(x.shape,generator=seeded(1)); ink=(x.amax(1,keepdim=True)>0.1).float()
yy,xx=torch.meshgrid(torch.arange(28.)-13.5,torch.arange(28.)-13.5,indexing="ij"); r2=yy**2+xx**2
def radius(im): 
    w=im.sum(1); return ((w*r2).sum((1,2))/w.sum((1,2))).sqrt().mean()
still=(true[:,:1]-true)[:,1:].abs().sum()
R=torch.zeros(1,3,1,1);R[:,0]=1
cases={"clean":x,"all":(x+n).clamp(0,1),"red":(x+R*n).clamp(0,1),"gb":(x+(1-R)*n).clamp(0,1),"ink only":(x+ink*n).clamp(0,1),"background only":(x+(1-ink)*n).clamp(0,1),"bg red":(x+(1-ink)*R*n).clamp(0,1),"unclamped":x+n,"const .08":(x+0.08).clamp(0,1),"const .08 bg":(x+0.08*(1-ink)),"bg, sign flipped":(x+(1-ink)*n.abs().mul(-1)), "bg abs":(x+(1-ink)*n.abs())}
for k,g in cases.items():
    d=free.decode(follow(free,free.encode(g).mean,turn,names)).mean
    print(f"{k:<18} err {((d-true)[:,1:].abs().sum()/still):.2f} t0 {((d-true)[:,0].abs().sum()/still*8):.2f} radius {radius(d[:,0]):.2f} true {radius(x):.2f} light {d[:,0].sum((1,2,3)).mean():.0f} true {x.sum((1,2,3)).mean():.0f}")
