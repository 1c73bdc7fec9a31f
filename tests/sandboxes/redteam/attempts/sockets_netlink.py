"""Talk to the kernel's audit, its firewall, its device manager."""

from tools import each, syscall

each(lambda it=it: (it, syscall("socket", 16, 3, it)) for it in range(1, 24))
