# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the providers of elastic nodes have in common: which nodes there are, what becomes of each, and its answer.

Nothing that is asked for becomes a part of a name, a path or a request: names are looked up among the settings' nodes.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from .._elastic.host import code_for
from .._errors import HpcError, InvalidInput
from .._hostlist import expand
from .base import NotReady, natural_key

__all__ = ["ElasticMachines", "answer_each", "failure", "placed_nodes", "refusals"]

AT_A_TIME = 8
BOOT_SECONDS = 240


class ElasticMachines(ABC):
    """The machines of one cluster's elastic nodes at one provider. Their role is their own: provisioning ignores it."""

    def __init__(self, data: Mapping[str, Any], kind_of: Mapping[str, str]) -> None:
        """Take the settings of this power host, and the kinds of the nodes that they stand for."""
        self.cluster = str(data["cluster"])
        self.seconds = float(data.get("boot_seconds") or BOOT_SECONDS)
        self._kind_of = kind_of
        kinds = data.get("kinds") or ()
        self._kept = frozenset(str(kind["name"]) for kind in kinds if kind.get("level") == "power")

    # What a provider gives

    @abstractmethod
    def states(self) -> dict[str, str]:
        """Return the machines that exist: starting, running, stopped or going, by node."""

    @abstractmethod
    def bring(self, names: Sequence[str], new: Sequence[str], doomed: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Have these machines accept logins, and tell of each.

        Those that are ``new`` are made, the ``doomed`` ones of them in place of what is there; others may have to be
        started.
        """

    @abstractmethod
    def stop(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Stop machines that exist and keep them."""

    @abstractmethod
    def discard(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines that exist."""

    def usable(self, name: str, state: str) -> bool:
        """Tell whether an existing machine is used as it is; others are what a start that was cut off has left."""
        return state == "running" or (state == "stopped" and self.keeps(name))

    # What a power host is asked for

    def status(self) -> dict[str, str]:
        """Return the machines that exist."""
        states = self.states()
        return {name: states[name] for name in sorted(states, key=natural_key)}

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start machines, and tell of each when it can be logged in to."""
        asked = list(dict.fromkeys(names))
        yield from refusals(name for name in asked if name not in self._kind_of)
        known = [name for name in asked if name in self._kind_of]
        states = self.states() if known else {}
        doomed = [name for name in known if name in states and not self.usable(name, states[name])]
        new = [name for name in known if name not in states or name in doomed]
        yield from self.bring(known, new, doomed)

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines, or stop those of a kind that keeps them; one that is gone is fine."""
        states = self.states()
        # What exists may go, also when its kind was taken out of the settings.
        known = [name for name in dict.fromkeys(names) if name in self._kind_of or name in states]
        yield from refusals(name for name in names if name not in known)
        yield from ({"node": name} for name in known if name not in states)
        yield from self.stop([name for name in known if name in states and self.keeps(name)])
        yield from self.discard([name for name in known if name in states and not self.keeps(name)])

    def remove(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines whatever their kind says."""
        states = self.states()
        yield from self.discard([name for name in dict.fromkeys(names) if name in states])

    def clear(self) -> Iterator[dict[str, Any]]:
        """Remove all of them, and what was made for them only."""
        yield from self.remove(list(self.states()))

    def keeps(self, name: str) -> bool:
        """Tell whether a node's machine is stopped, not removed."""
        return self._kind_of.get(name) in self._kept


def placed_nodes(
    kinds: Iterable[Mapping[str, Any]], problems: list[str], network: ipaddress.IPv4Network | None = None
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Give kind, name and address of each node, from the first address on; what is wrong is added to ``problems``."""
    by_address: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for kind in kinds:
        what = f"kind {kind.get('name')!r}"
        try:
            names = expand(str(kind.get("nodes") or ""))
            first = ipaddress.IPv4Address(str(kind.get("first_address") or ""))
        except (InvalidInput, ValueError) as error:
            problems.append(f"{what}: {error}")
            continue
        for number, name in enumerate(names):
            address = first + number
            owner = by_address.setdefault(str(address), name)
            if owner != name:
                problems.append(f"{what}: {name} would have the address {address} of {owner}.")
            if network is not None and address not in network:
                problems.append(f"{what}: {name} would have the address {address}, which is not in {network}.")
            other = by_name.setdefault(name, str(kind.get("name")))
            if other != str(kind.get("name")):
                problems.append(f"{what}: {name} is a node of kind {other!r}, too.")
            yield kind, name, str(address)


def failure(name: str, error: HpcError) -> dict[str, Any]:
    """Return the answer for a node that could not be had."""
    return {"node": name, "code": "BootTimeout" if isinstance(error, NotReady) else code_for(error), "text": str(error)}


def refusals(names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Answer for what is no node."""
    for name in dict.fromkeys(names):
        yield {"node": name, "code": "Invalid", "text": "this host has no such node"}


def answer_each(names: Sequence[str], act: Callable[[str], dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """Do something for each node, some at a time; give each answer as soon as it is there."""
    with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
        futures = {pool.submit(act, name): name for name in names}
        for future in as_completed(futures):
            name = futures[future]
            try:
                yield {"node": name, **(future.result() or {})}
            except HpcError as error:
                yield failure(name, error)
