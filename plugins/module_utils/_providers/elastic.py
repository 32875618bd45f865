# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the providers of elastic nodes have in common: which nodes there are, and an answer for each of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from .._elastic.host import code_for
from .._errors import HpcError, InvalidInput
from .._hostlist import expand
from .base import NotReady

__all__ = ["answer_each", "failure", "kept", "placed_nodes", "refusals"]

AT_A_TIME = 8


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


def kept(data: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the kinds whose machines are stopped, not removed."""
    return frozenset(str(kind["name"]) for kind in data.get("kinds") or () if kind.get("level") == "power")


def failure(name: str, error: HpcError) -> dict[str, Any]:
    """Return the answer for a node that could not be had."""
    return {"node": name, "code": "BootTimeout" if isinstance(error, NotReady) else code_for(error), "text": str(error)}


def refusals(names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Answer for what is no node."""
    for name in dict.fromkeys(names):
        yield {"node": name, "code": "Invalid", "text": "this host has no such node"}


def answer_each(names: Sequence[str], act: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Do something for each node, some at a time; give each answer as soon as it is there."""
    with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
        futures = {pool.submit(act, name): name for name in names}
        for future in as_completed(futures):
            name = futures[future]
            try:
                yield {"node": name, **future.result()}
            except HpcError as error:
                yield failure(name, error)
