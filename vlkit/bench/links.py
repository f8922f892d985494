"""A slow link between two groups of processes on one machine: real, where the machine lets us, else a model of one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_IP, _TC = "ip", "tc"
_INTERFACE = "vlkit0"


@dataclass(frozen=True)
class Link:
    """How two groups of processes are joined: at ``megabits`` (10^6 bits) a second, each way.

    ``latency_us`` is what a call adds in the model, in microseconds; a real link has its own. ``places`` are arguments
    for ``ranks.on_ranks`` that put each process at its end of a real link; None is a model.
    """

    megabits: float
    latency_us: float = 0.0
    places: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def real(self) -> bool:
        """Whether bytes go through it."""
        return self.places is not None

    def seconds(self, received: int, calls: int) -> float:
        """What the model adds to a step: the bytes that cross it, and the calls."""
        return 0.0 if self.real else received * 8 / (self.megabits * 1e6) + calls * self.latency_us * 1e-6

    def __str__(self) -> str:
        if self.real:
            return f"two network namespaces, {self.megabits:g} Mbit/s each way"
        return (
            f"model: the measured step, and crossing bytes at {self.megabits:g} Mbit/s, {self.latency_us:g} us a call"
        )


@contextmanager
def slow_link(ranks: int, *, megabits: float, latency_us: float = 50.0) -> Iterator[Link]:
    """A link between the first and the second half of ``ranks`` processes.

    It is real with Linux network namespaces (root is needed): each half has its own, processes of one half talk through
    its loopback, and a token bucket limits what leaves it. Otherwise a model.
    """
    names = [f"vlkit-{os.getpid()}-{end}" for end in "ab"]
    try:
        made = _make(names, megabits)
        if not made:
            yield Link(megabits, latency_us)
            return
        prefixes = [[_IP, "netns", "exec", names[2 * rank // ranks]] for rank in range(ranks)]
        yield Link(megabits, 0.0, {"prefixes": prefixes, "environment": {"GLOO_SOCKET_IFNAME": _INTERFACE}})
    finally:
        if shutil.which(_IP):
            for name in names:
                subprocess.run([_IP, "netns", "del", name], capture_output=True, check=False)


def _make(names: list[str], megabits: float) -> bool:
    """Whether both namespaces are there and joined."""
    if os.name != "posix" or os.geteuid() or not (shutil.which(_IP) and shutil.which(_TC)):
        return False
    first, second = names
    lines = [
        *(f"{_IP} netns add {name}" for name in names),
        f"{_IP} -n {first} link add {_INTERFACE} type veth peer name {_INTERFACE} netns {second}",
    ]
    for number, name in enumerate(names):
        lines += [
            f"{_IP} -n {name} addr add 10.203.0.{number + 1}/24 dev {_INTERFACE}",
            f"{_IP} -n {name} link set lo up",
            f"{_IP} -n {name} link set {_INTERFACE} up",
            f"{_IP} netns exec {name} {_TC} qdisc add dev {_INTERFACE} root tbf "
            f"rate {megabits:g}mbit burst 256kb latency 100ms",
        ]
    return all(subprocess.run(line.split(), capture_output=True, check=False).returncode == 0 for line in lines)
