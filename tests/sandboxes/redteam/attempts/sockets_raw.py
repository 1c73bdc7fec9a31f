"""Open sockets that see or forge packets."""

from tools import HIGH, each, syscall

each(
    lambda it=it: (it, syscall("socket", *it))
    for it in [
        (2, 3, 1),
        (10, 3, 58),
        (2, 2, 1),
        (10, 2, 58),
        (17, 3, 768),
        (17, 2, 768),
        (2 | HIGH, 3 | HIGH, 255),
        (2, 1, 132),
        (2, 1, 262),
        (2, 2, 136),
    ]
)
