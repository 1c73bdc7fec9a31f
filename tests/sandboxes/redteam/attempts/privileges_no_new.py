"""Take back that programs bring no privileges, or count those that are left."""

from tools import each, syscall, won

if syscall("prctl", 39, 0, 0, 0, 0) != 1:
    won("no_new_privs is not set")
with open("/proc/self/status") if __import__("os").path.exists("/proc/self/status") else open("/dev/null") as file:
    for line in file:
        if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb")) and int(line.split()[1], 16):
            won(line)
each([lambda: (syscall("prctl", 38, 0, 0, 0, 0), "prctl")])
