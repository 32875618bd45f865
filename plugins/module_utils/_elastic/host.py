# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power host: where machines are made. What the controller's key may ask for over SSH is decided here.

A request is one line, ``resume NODES``, ``suspend NODES`` or ``status``, as SSH hands it to a forced command. The
answer is a line of JSON for each node, as soon as it is known. Nothing of a request is ever a part of a command, a
path or a name that is not in the configuration of this host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .._errors import HpcError, InvalidInput
from .._hostlist import expand

__all__ = ["CODES", "Machines", "Refused", "Request", "answers", "code_for", "parse_request"]

MAX_REQUEST = 64 * 1024
_REQUEST = re.compile(r"(?P<verb>resume|suspend) (?P<nodes>[A-Za-z0-9.,\[\]-]+)|(?P<status>status)")

# Classes of a provider's errors, and the codes that users see.
CODES = {
    "AddressInUse": "AddressInUse",
    "Auth": "Auth",
    "Capacity": "Capacity",
    "Invalid": "Invalid",
    "NotFound": "NotFound",
    "Quota": "Quota",
    "Throttled": "Throttled",
    "Unknown": "Unknown",
}


class Refused(HpcError):
    """A request that this host does not carry out."""


@dataclass(frozen=True)
class Request:
    """What may be asked."""

    verb: str
    nodes: tuple[str, ...] = ()


class Machines(Protocol):
    """The machines of one cluster's elastic nodes at one provider."""

    def status(self) -> dict[str, str]:
        """Return the machines that exist, by the names of their nodes, as values of ``Machine``."""

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start machines, those that exist stay; tell of each when it accepts logins: see ``answers``."""

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove or stop machines; one that is gone is fine."""

    def remove(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines whatever their level; no controller may ask for that."""

    def clear(self) -> Iterator[dict[str, Any]]:
        """Remove all machines, and what was made for them only; no controller may ask for that."""


def parse_request(text: str, allowed: Mapping[str, object]) -> Request:
    """Return the request, or raise Refused. Pure. ``allowed`` has the names of the nodes that may be asked for."""
    if len(text) > MAX_REQUEST:
        raise Refused(f"a request of {len(text)} characters")
    found = _REQUEST.fullmatch(text)
    if not found:
        raise Refused(f"no request: {text[:200]!r}")
    if found["status"]:
        return Request("status")
    try:
        names = tuple(dict.fromkeys(expand(found["nodes"])))
    except InvalidInput as error:
        raise Refused(f"no list of nodes: {error.what}") from error
    strangers = [name for name in names if name not in allowed]
    if strangers or not names:
        raise Refused(f"no nodes of this host: {', '.join(strangers[:5])}{' ...' * (len(strangers) > 5)}")
    return Request(found["verb"], names)


def code_for(error: BaseException) -> str:
    """Return the code of an error of a provider."""
    for kind in type(error).__mro__:
        if kind.__name__ in CODES:
            return CODES[kind.__name__]
    return "Failed"


def answers(request: Request, machines: Machines, log: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Carry a request out. Each answer has ``node`` and either ``code`` and ``text``, or what was found or made."""
    try:
        if request.verb == "status":
            yield {"machines": machines.status()}
            return
        left = dict.fromkeys(request.nodes)
        found = machines.resume(request.nodes) if request.verb == "resume" else machines.suspend(request.nodes)
        for answer in found:
            left.pop(answer["node"], None)
            log(request.verb, **answer)
            yield answer
        for name in left:
            yield {"node": name, "code": "Failed", "text": "nothing is known of it"}
    except HpcError as error:
        log("error", verb=request.verb, text=str(error))
        yield {"error": {"code": code_for(error), "text": str(error)}}
