#!/usr/bin/env python3
"""Gets the AF_XDP sockets of a port from xswitchd, and starts QEMU with them. An example for launchers of your own.

    fds.py SOCKET PORT                         show QEMU's options; the sockets are given back
    fds.py SOCKET PORT -- qemu-system-… OPTION…  become QEMU; the port's -netdev and -device follow its options

SOCKET is `fds.sock` in the daemon's run directory. PORT is a port's name or number. One JSON message goes each way. The
request is {"request": "sockets", "port": "vm1"}. The answer has the netdev's name, the guest's MAC address and more
(`ifname`, `mac`, …). One socket a queue comes with it (SCM_RIGHTS), in queue order. A refusal is {"error": "…",
"code": "EBUSY", …}.

The sockets then belong to this process until it ends or closes them. So QEMU must be this very process (exec), or the
request must name QEMU's process in "pid". The sockets can be bound only in the network namespace of the netdev. That is
the daemon's, unless the answer names one in "netns". QEMU locks 32 MiB of memory for each queue. RLIMIT_MEMLOCK must
allow that: the answer's `memlock` is enough.
"""

import json
import os
import resource
import socket
import sys

MOST_BYTES, MOST_SOCKETS = 4096, 64


def sockets_of(path, port):
    """What the daemon says of a port, and the descriptors of its sockets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.connect(path)
        daemon.send(json.dumps({"request": "sockets", "port": port}).encode())
        message, fds, _, _ = socket.recv_fds(daemon, MOST_BYTES, MOST_SOCKETS)
    if not message:
        raise OSError("the daemon hung up")
    answer = json.loads(message)
    if "error" in answer:
        raise OSError(f"{answer['error']} ({answer['code']})")
    return answer, fds


def options(offer, fds):
    """QEMU's options for a netdev and a card."""
    mode = {"native": "native", "generic": "skb"}[offer["mode"]]
    netdev = f"af-xdp,id=xsw,ifname={offer['ifname']},mode={mode},queues={len(fds)},inhibit=on,sock-fds="
    device = f"virtio-net-pci,netdev=xsw,mac={offer['mac']},host_mtu={offer['mtu']}"
    if len(fds) > 1:
        device += f",mq=on,vectors={2 * len(fds) + 2}"
    return ["-netdev", netdev + ":".join(map(str, fds)), "-device", device]


def main(path, port, *command):
    offer, fds = sockets_of(path, port)
    if not command:
        print(*options(offer, fds))
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if resource.RLIM_INFINITY != soft < offer["memlock"]:
        try:
            hard = hard if hard == resource.RLIM_INFINITY else max(hard, offer["memlock"])
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (offer["memlock"], hard))
        except (OSError, ValueError) as error:
            print(f"fds.py: QEMU needs {offer['memlock']} bytes of locked memory: {error}", file=sys.stderr)
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        os.execvp(command[0], [*command, *options(offer, fds)])
    except OSError as error:
        raise OSError(f"{command[0]}: {error}") from error


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) < 2 or len(arguments) > 2 and (arguments[2] != "--" or len(arguments) == 3):
        sys.exit(__doc__)
    try:
        main(*arguments[:2], *arguments[3:])
    except (OSError, ValueError) as error:
        sys.exit(f"fds.py: {error}")
