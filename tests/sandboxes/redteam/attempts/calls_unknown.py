"""Make calls that are newer than any filter."""

from tools import held, syscall, won

for number in (467, 468, 469, 470, 471, 480, 511, 600):
    try:
        won(syscall(number, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno != 38:
            won("%d: %s" % (number, error))
held()
