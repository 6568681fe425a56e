import time, torch, sys
torch.set_num_threads(1)
from poflow_lite.experiments import recipe, sequences, build_model
from poflow_lite.training import Schedule, fit
for name, ch in (("digits",{}),("digits",{"network":"patches","channels":(32,)})):
    for model,opt in (("flow-factorized",{"field":"gradient","hamilton_jacobi":0.0,"consistency":0.1}),("flow-factorized",{"field":"free","hamilton_jacobi":0.0,"consistency":0.1}),("msp",{})):
        s = recipe(name,"lecture",model,start="random",steps=30,batch_size=32,**opt,**ch)
        tr = sequences(name,"train",s)
        m = build_model(model,s,tr.image_shape,3,0)
        def sample(g): return tr.sample(s.batch_size,s.frames,g,**getattr(m,"draws",{}))
        b=time.process_time(); fit(m,sample,Schedule(30,s.learning_rate,warmup=10),seed=0,progress=False)
        print(name,ch,model,opt,(time.process_time()-b)/30*1000,"ms/step",len(tr))
