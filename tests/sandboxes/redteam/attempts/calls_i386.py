"""Make a system call of the old architecture, whose numbers are others: unshare, as int 0x80."""

import ctypes
import mmap

from tools import IS_X86, held, won

if not IS_X86:
    held("not on this machine")
# mov eax, 310; mov ebx, 0x10000000; int 0x80; ret
code = b"\xb8\x36\x01\x00\x00\x53\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3"
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
won("unshared") if result == 0 else held(str(result))
