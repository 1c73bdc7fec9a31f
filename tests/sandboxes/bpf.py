"""What the kernel does with a seccomp filter, in twenty lines: the judge of filters for machines that are not here."""

import struct
from collections.abc import Sequence

KILL, ALLOW = 0x80000000, 0x7FFF0000
ERRNO = 0x00050000


def judge(program: bytes, arch: int, number: int, args: Sequence[int] = ()) -> int:
    """The action for one call; fails on an instruction that is not known, or a jump out of the program."""
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                assert k % 4 == 0
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += yes if accumulator == k else no
            case 0x25:  # BPF_JMP | BPF_JGT | BPF_K
                at += yes if accumulator > k else no
            case 0x45:  # BPF_JMP | BPF_JSET | BPF_K
                at += yes if accumulator & k else no
            case 0x06:  # BPF_RET | BPF_K
                return k
            case _:
                raise AssertionError(f"instruction {operation:#x}")
