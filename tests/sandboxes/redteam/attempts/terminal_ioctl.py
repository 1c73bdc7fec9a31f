"""Type into a terminal, by a number whose high half is not what it seems."""

import ctypes

from tools import HIGH, held, syscall, won

for request in (0x5412, 0x541C, 0x541D, 0x5423):
    for number in (request, request | HIGH, request | (0xFFFF << 32)):
        try:
            won((hex(number), syscall("ioctl", 1, number, ctypes.create_string_buffer(b"x"))))
        except OSError as error:
            if error.errno != 1:  # it is not the filter that says no
                won("%s reaches the kernel: %s" % (hex(number), error))
held()
