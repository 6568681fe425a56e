import time, torch, sys, pickle
torch.set_num_threads(1)
from dataclasses import replace
from statistics import mean
from poflow_lite.experiments import recipe, sequences, build_model
from poflow_lite.training import Schedule, fit
from poflow_lite.studies.tasks import TASKS, measure_task, task_sequences, lent_steps
from poflow_lite.metrics import *
steps, batch, start_from = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
seed=int(sys.argv[4]) if len(sys.argv)>4 else 0
net = {"network":"patches","channels":(32,)} if start_from!="pre" else {}
SHOWN = {"single": TASKS["random starts"]}
SHOWN |= {name: replace(TASKS[name], start="random") for name in ("half speed", "double speed")}
SHOWN |= {name: TASKS[f"random starts {name}"] for name in ("switching", "two at once", "three at once", "backwards")}
SHOWN |= {"16 frames": TASKS["random starts twice as long"]}
def mismatch(model, test, images=80):
    out=[]
    for k in range(3):
        batch = test.batch(torch.arange(images), k, generator=torch.Generator().manual_seed(0))
        e = model.encode(batch.frames.flatten(0, 1)).mean.unflatten(0, batch.frames.shape[:2])
        z = model.rollout(e[:, 0], batch.k, range(9)).z
        out.append(((z-e).norm(dim=-1).mean(0)[-1]/(e-e[:,:1]).norm(dim=-1).mean(0)[-1]).item())
    return out
for label,model,opt in [("gradient","flow-factorized",dict(field="gradient",hamilton_jacobi=0.0,consistency=0.0)),("gradient+a","flow-factorized",dict(field="gradient",hamilton_jacobi=0.0,consistency=0.1)),("free","flow-factorized",dict(field="free",hamilton_jacobi=0.0,consistency=0.0)),("free+a","flow-factorized",dict(field="free",hamilton_jacobi=0.0,consistency=0.1)),("msp","msp",{})]:
    s = recipe("digits","lecture",model,start="random",steps=steps,batch_size=batch,**opt,**net)
    tr, te = (sequences("digits",x,s) for x in ("train","test"))
    m = build_model(model,s,tr.image_shape,3,seed)
    if start_from=="pre" and model!="msp":
        from poflow_lite.experiments import load_pretrained
        p=load_pretrained("digits-flow","cpu").model
        m.encoder.load_state_dict(p.encoder.state_dict()); m.decoder.load_state_dict(p.decoder.state_dict())
    def sample(g): return tr.sample(s.batch_size,s.frames,g,**getattr(m,"draws",{}))
    b=time.process_time(); fit(m,sample,Schedule(steps,s.learning_rate,warmup=30),seed=seed,progress=False)
    sec=time.process_time()-b
    m.requires_grad_(False).eval()
    if model=="msp":
        op={"flow":lent_steps(m,tr)}
        own=equivariance_error(m,with_coefficients(te.first(80),lambda bb: with_own_coefficients(m,bb)))
        lent=equivariance_error(m,with_coefficients(te.first(80),Donors(m,tr,images=100)))
        print("own",own,"lent",lent)
    else: op={"flow":m}
    row={}
    for t,task in SHOWN.items():
        e=measure_task(m,op,task,task_sequences(task,"digits","test",80)); st=e.pop("no motion")
        row[t]={n:round(mean(v[x]/st[x] for x in st),2) for n,v in e.items() if len(v)==len(st)}
    print(label,f"{sec:.0f}s",row, [] if model=="msp" else [round(x,2) for x in mismatch(m,te)],flush=True)
