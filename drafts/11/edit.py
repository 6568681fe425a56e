"""Lesson 11 on the new record: run after data/results/digits-ablations.json is there. Argument: none."""
import json, nbformat, subprocess
P='./notebooks/11-ablations-and-cost.ipynb'
nb=nbformat.read(P,4)
def sub(a,b,n=1):
    hit=[c for c in nb.cells if a in c.source]
    assert len(hit)==1 and hit[0].source.count(a)==n,(len(hit),a)
    hit[0].source=hit[0].source.replace(a,b)
old=json.load(open('drafts/11/gaps.json'))
subprocess.run(['python','drafts/11/fill.py','--record'],check=True,capture_output=True)
new=json.load(open('drafts/11/gaps.json'))
for k in ('LIVE','FOREST','GAP','DENSITY','CHAIN'):
    if old[k]!=new[k]: sub(old[k],new[k]); print(k,'\n  ',new[k])
sub('places += [("prior", "no path KL"), ("field"','places += [("prior", "pushforward"), ("field"')
sub("*No path KL* trains with `prior=pushforward`: that is reading B, one bound on the whole film and one KL. The likelihood of the film is the fair currency for both readings.","*Pushforward* moves the prior by the posterior's own flow: that is reading B, one bound on the whole film. At the same β it pays one KL a film where the standard pays one for each of $T+1=9$ frames; at β = 0.27 it pays as much. So the two causes, reading and weight, come apart. The likelihood of the film is the fair currency for both readings.")
sub('''TAKEN = [("standard", "standard"), ("prior", "static N(0, I)"), ("prior", "no path KL")]
TAKEN += [("log_det", "trace"), ("log_det", "none")]''','''TAKEN = [("standard", "standard"), ("prior", "static N(0, I)"), ("prior", "pushforward")]
TAKEN += [("prior", "pushforward, β = 0.27"), ("log_det", "trace"), ("log_det", "none")]''')
sub('''labels = ("standard", "static\\nprior", "no path KL\\n(reading B)", "trace", "no\\ndensity")''','''labels = ("standard", "static\\nprior", "reading\\nB", "B, as\\nheavy", "trace", "no\\ndensity")''')
sub('look(1 if "no path" in place[1] else 0, mfc="white")','look(1 if "push" in place[1] else 0, mfc="white")')
sub('''> **Note.** "No path KL" changes two things in one word: the reading, and the weight. It pays one KL a film where the standard pays $T+1=9$, at the same β. The record cannot separate them.

''','')
nbformat.write(nb,P)
