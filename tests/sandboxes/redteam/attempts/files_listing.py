"""List the directory of the host in which the version and the layer lie."""

import os

from tools import TARGETS, won

won(os.listdir(TARGETS["place"]))
