"""Cut a file of the version to nothing, and move its directory away."""

import os

from tools import done

os.truncate("cut.txt", 0)
try:
    os.rename("d", "moved")
except OSError:
    pass
done()
