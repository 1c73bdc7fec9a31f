"""Give a file of the version a second name, and write through that."""

import os

from tools import done

os.link("state.txt", "second-name")
with open("second-name", "r+") as file:
    file.write("EVIL")
done()
