"""More on the disk than may be, in files of a fair size."""

number = 0
while number < 40:
    with open("f%d" % number, "wb", buffering=0) as file:
        file.write(b"x" * (8 << 20))
    number += 1
print("HAD IT ALL")
