"""Change a setting of the kernel: the handler of core dumps, the loader of modules. What is written is what is there."""

from tools import each

names = "kernel/core_pattern kernel/modprobe kernel/hotplug kernel/hostname kernel/sysrq kernel/ns_last_pid"
names += " vm/overcommit_memory kernel/core_pipe_limit net/ipv4/ip_forward net/core/somaxconn kernel/shmmax"


def write(name):
    path = "/proc/sys/" + name
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text)
    return name


each(lambda it=it: write(it) for it in names.split())
