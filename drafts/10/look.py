from lib import *
up = sequences("digits","test",replace(RECIPE,start="fixed"))
fig=plotting.image_grid(up.images[:40].reshape(4,10,3,28,28),[str(i*10) for i in range(4)],[str(i) for i in range(10)],size=0.7)
open("drafts/10/digits.png","wb").write(__import__("poflow_lite.plotting.figures",fromlist=["png"]).png(fig))
import time
b=time.process_time(); m=train("flow-factorized",300,0,field="free",consistency=1.0); print(time.process_time()-b)
r=measure(m,{"flow":m}); print({t:" ".join(f"{v:.2f}" for v in x.values()) for t,x in r.items()}, mismatch(m))
