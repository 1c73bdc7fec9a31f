"""A million files, as links, directories, pipes and names."""

import os

for number in range(1_000_000):
    (os.mkdir if number % 3 else os.mkfifo)("i%d" % number)
print("HAD IT ALL")
