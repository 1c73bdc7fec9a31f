"""Be mapped to another id than was given."""

from tools import each


def write(name):
    with open("/proc/self/" + name, "w") as file:
        file.write("allow" if name == "setgroups" else "0 0 1")
    return name


each(lambda it=it: write(it) for it in ("uid_map", "gid_map", "setgroups"))
