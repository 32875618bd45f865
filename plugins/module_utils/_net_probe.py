# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether packets get through to other hosts, tried for real, without privilege and without a listener there.

A closed port answers: with a reset (TCP) or an ICMP message (UDP). So any answer means that the way is open, and only
silence, or the answer of a firewall, means that it isn't. All attempts run at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Outcome", "Target", "in_background", "probe", "resolve"]

# Linux values that Python's socket module lacks.
_IP_MTU, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 14, 10, 3
# Where tcpi_segs_in is in struct tcp_info (Linux 4.2 and newer).
_SEGMENTS_IN = 140
# Headers of IP and UDP.
_HEADERS = 28
# Nothing listens where traceroute has always sent its packets.
_MTU_PORT = 33434
_NTP_REQUEST = b"\x23" + bytes(47)
# Lost packets are sent again then. TCP does so itself, after one second.
_SEND_SECONDS = (0.0, 0.4, 1.0)


@dataclass(frozen=True)
class Target:
    """Where packets should get through: a port of an address. ``protocol`` is tcp, udp, or mtu (full-sized packets)."""

    address: str
    protocol: str
    port: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came back.

    ``state`` is ``open`` (something answers), ``closed`` (nothing listens, but the way there is open), ``rejected``
    (a firewall refuses), ``silent`` or ``error``; for full-sized packets ``passed``, ``too_big`` or ``unknown``.
    """

    state: str
    detail: str = ""


@dataclass
class _Attempt:
    """A socket, what it sends, and what came back."""

    connection: socket.socket
    tcp: bool
    payload: bytes
    started: float
    sent: int = 0
    result: Outcome | None = None

    def send(self, now: float) -> None:
        """Send the datagrams whose time has come. What the kernel says of earlier ones comes as an error of this."""
        while (
            not self.tcp
            and self.result is None
            and self.sent < len(_SEND_SECONDS)
            and now >= self.started + _SEND_SECONDS[self.sent]
        ):
            self.sent += 1
            try:
                self.connection.send(self.payload)
            except OSError as failure:
                self.result = self.judge(failure.errno or 0)

    def receive(self) -> None:
        """Take what came."""
        if self.tcp:
            # Asked first: reading the error resets the counters.
            answered = _segments_in(self.connection) != 0
            code = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.result = Outcome("open") if code == 0 else self.judge(code, answered)
            return
        try:
            self.connection.recv(2048)
            self.result = Outcome("open")
        except BlockingIOError:
            pass
        except OSError as failure:
            self.result = self.judge(failure.errno or 0)

    def judge(self, code: int, answered: bool = True) -> Outcome:
        """Return what the error number tells."""
        if code == errno.ECONNREFUSED:
            # A reset is a segment that came in; a firewall's "port unreachable" is none.
            return Outcome("closed" if answered else "rejected")
        if code == errno.EMSGSIZE:
            return Outcome("too_big", _path_mtu(self.connection))
        return Outcome("error", os.strerror(code))


def _segments_in(connection: socket.socket) -> int | None:
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    except OSError:
        return None
    return struct.unpack_from("=I", info, _SEGMENTS_IN)[0] if len(info) >= _SEGMENTS_IN + 4 else None


def _path_mtu(connection: socket.socket) -> str:
    try:
        return str(connection.getsockopt(socket.IPPROTO_IP, _IP_MTU))
    except OSError:
        return ""


def _attempt(target: Target, source: str, size: int, now: float) -> _Attempt:
    """Start one attempt. ``size`` is that of the whole packet; 0: whatever the protocol needs."""
    tcp = target.protocol == "tcp"
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    connection.setblocking(False)
    if source:
        with contextlib.suppress(OSError):
            # A host with several networks must try the cluster's.
            connection.bind((source, 0))
    payload = _NTP_REQUEST if target.port == 123 else bytes(8)
    if size:
        payload = bytes(size - _HEADERS)
        connection.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    attempt = _Attempt(connection, tcp, payload, now)
    try:
        code = connection.connect_ex((target.address, target.port or _MTU_PORT))
    except OSError as failure:
        code = failure.errno or 0
    if code not in (0, errno.EINPROGRESS):
        attempt.result = attempt.judge(code)
    elif tcp and code == 0:
        attempt.result = Outcome("open")
    return attempt


def _wait(attempts: Iterable[_Attempt], seconds: float) -> None:
    """Wait until each attempt has its result or the time is over."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for attempt in attempts:
            attempt.send(time.monotonic())
            if attempt.result is None:
                events = selectors.EVENT_WRITE if attempt.tcp else selectors.EVENT_READ
                selector.register(attempt.connection, events, attempt)
        while selector.get_map():
            now = time.monotonic()
            if now >= deadline:
                return
            ready = {key.fd for key, _events in selector.select(min(0.1, deadline - now))}
            for key in list(selector.get_map().values()):
                attempt = key.data
                if key.fd in ready:
                    attempt.receive()
                attempt.send(time.monotonic())
                if attempt.result is not None:
                    selector.unregister(attempt.connection)


def probe(
    targets: Sequence[Target], source: str = "", mtu: int = 1500, seconds: float = 2.0, at_once: int = 300
) -> list[Outcome]:
    """Try all ``targets`` from the address ``source``; return the outcome of each, in their order.

    ``mtu`` is the size of the packets for targets of protocol mtu. No more than ``at_once`` targets are open at a time.
    """
    outcomes: list[Outcome] = []
    for first in range(0, len(targets), at_once):
        pairs: list[list[_Attempt]] = []
        try:
            for target in targets[first : first + at_once]:
                sizes = (0, mtu) if target.protocol == "mtu" else (0,)
                pairs.append([_attempt(target, source, size, time.monotonic()) for size in sizes])
            _wait([attempt for pair in pairs for attempt in pair], seconds)
        finally:
            for pair in pairs:
                for attempt in pair:
                    attempt.connection.close()
        outcomes += [_outcome(*(attempt.result for attempt in pair)) for pair in pairs]
    return outcomes


def _outcome(small: Outcome | None, *full: Outcome | None) -> Outcome:
    """Return the outcome of one target from those of its attempts."""
    if not full:
        return small or Outcome("silent")
    big = full[0]
    if big is not None and big.state == "too_big":
        return big
    if big is not None and big.state in ("open", "closed"):
        return Outcome("passed")
    # Only where small packets are answered does silence tell something.
    return Outcome("too_big") if big is None and small is not None and small.state != "error" else Outcome("unknown")


@dataclass
class _Background:
    """Work in threads of its own, which is not waited for longer than agreed."""

    results: dict[Any, Any] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    deadline: float = 0.0

    def finish(self) -> dict[Any, Any]:
        """Return the results that are there in time."""
        for thread in self.threads:
            thread.join(max(0.0, self.deadline - time.monotonic()))
        return dict(self.results)


def in_background(work: Callable[[Any], Any], items: Iterable[Any], seconds: float = 2.5) -> _Background:
    """Start ``work`` on each of ``items`` at once; ``finish()`` returns the results by item."""
    background = _Background(deadline=time.monotonic() + seconds)

    def run(item: Any) -> None:
        background.results[item] = work(item)

    for item in items:
        # A thread that hangs in the resolver must not keep the process alive.
        thread = threading.Thread(target=run, args=(item,), daemon=True)
        background.threads.append(thread)
        thread.start()
    return background


def resolve(name: str) -> list[str]:
    """Return the IPv4 addresses of ``name``, as programs on this host see them; empty if there are none."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(entry[4][0]) for entry in found})
