"""Be the last that is killed when memory ends."""

from tools import won

with open("/proc/self/oom_score_adj", "w") as file:
    file.write("-1000")
won()
