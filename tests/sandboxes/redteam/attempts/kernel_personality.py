"""Have addresses laid out without chance."""

from tools import each, syscall

each([lambda: (syscall("personality", 0x40000), "no chance"), lambda: (syscall("personality", 0x8), "linux32")])
