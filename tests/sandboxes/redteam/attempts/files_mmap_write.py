"""Write into a file of the version through shared memory."""

import mmap

from tools import done

with open("mapped.txt", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
    memory[:4] = b"EVIL"
    memory.flush()
done()
