"""Open devices of the machine."""

import os

from tools import each

NAMES = "mem kmem port kmsg loop-control loop0 fuse net/tun kvm sda vda nvme0n1 dm-0 snapshot vhost-net userfaultfd"
NAMES += " mapper/control watchdog hpet nvram input/event0 dri/card0 vsock rtc0 uinput cuse btrfs-control autofs"
each(lambda it=it: os.open("/dev/" + it, os.O_RDONLY) for it in NAMES.split())
