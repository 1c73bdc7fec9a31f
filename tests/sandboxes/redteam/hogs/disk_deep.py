"""More files than may be, deeper than a path can say."""

import os

for _ in range(45):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
for number in range(3000):
    os.close(os.open("n%d" % number, os.O_CREAT | os.O_WRONLY))
print("HAD IT ALL")
