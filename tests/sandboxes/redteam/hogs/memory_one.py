"""More memory than there may be, in one process."""

held = [bytearray(10**7) for _ in range(80)]
print("HAD IT ALL")
