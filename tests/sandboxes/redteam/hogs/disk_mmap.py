"""More on the disk than may be, without a write."""

import mmap

for number in range(20):
    with open("m%d" % number, "w+b") as file:
        file.truncate(16 << 20)
        with mmap.mmap(file.fileno(), 0) as memory:
            for at in range(0, 16 << 20, 4096):
                memory[at] = 1
            memory.flush()
print("HAD IT ALL")
