# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slurm's configuration files from the role's and the user's options, with everything that is wrong told at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import (
    FILES,
    RELEASES,
    leads,
    look_up,
    nearest,
    needs_slurmd_restart,
    normal,
    repeats,
    table,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import Hardware, names_of, plan_nodes
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.text import line, value_text

__all__ = ["CONTROLLER_FILES", "Layers", "Rendered", "fingerprint", "key_value_text", "render"]

HEADER = "# Made by turnkey.hpc; changes by hand are overwritten.\n"
# The controllers have these, and hand them out.
CONTROLLER_FILES = tuple(name for name in FILES if name != "slurmdbd.conf")
_ELSEWHERE = {
    "clustername": "cluster_name",
    "slurmctldhost": "the controllers",
    "nodename": "slurm_node_kinds",
    "partitionname": "slurm_partitions",
}


@dataclass(frozen=True)
class Layers:
    """Options by file: the role's choices, the role's own, and the user's."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    owned: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def files(self, problems: list[str]) -> list[str]:
        """Return the names of the files that some layer has."""
        names = dict.fromkeys([*self.defaults, *self.owned, *self.options])
        for name in names:
            if name not in FILES:
                near = nearest(name, FILES)
                problems.append(
                    f"`{name}` is no file of Slurm that is known; "
                    + (f"did you mean `{near}`?" if near else f"the files are {', '.join(FILES)}.")
                )
        return [name for name in names if name in FILES]


@dataclass(frozen=True)
class Rendered:
    """The text of each file, and the nodes that must be measured first."""

    files: dict[str, str]
    missing: list[str]


def merged(name: str, layers: Layers, release: str, problems: list[str]) -> dict[str, Any]:
    """Return the keys of a key=value file with their values, the user's over the role's. Lists of lines stay lists."""
    values: dict[str, Any] = {}
    owned = {normal(key) for key in layers.owned.get(name) or {}}
    elsewhere = _ELSEWHERE if name == "slurm.conf" else {}
    for layer, source in ((layers.defaults, "defaults"), (layers.owned, "owned"), (layers.options, "user")):
        seen: dict[str, str] = {}
        for key, value in (layer.get(name) or {}).items():
            form = normal(str(key))
            if seen.setdefault(form, str(key)) != str(key):
                problems.append(f"`{key}` and `{seen[form]}` of {name} are the same key; remove one.")
            canonical = leads(name).get(form, "") if form not in elsewhere else ""
            wrong = ""
            if source == "user" and form in elsewhere:
                wrong = f"`{key}` of {name} is made from {elsewhere[form]}; set it there."
            elif not canonical:
                canonical, wrong = look_up(name, "", str(key), release)
            if not wrong and source == "user" and form in owned:
                set_by_role = values[canonical]
                if isinstance(set_by_role, list) and isinstance(value, (list, tuple, str)):
                    more = list(value) if not isinstance(value, str) else value.split(",")
                    values[canonical] = list(dict.fromkeys([*set_by_role, *more]))
                    continue
                wrong = f"`{canonical}` of {name} belongs to the role, which sets it itself; remove it."
            # What the role chooses may be for other releases; a slip in it must not go unnoticed.
            if wrong and source == "defaults" and any(not look_up(name, "", str(key), other)[1] for other in RELEASES):
                continue
            if wrong:
                problems.append(wrong)
            elif value is None:
                values.pop(canonical, None)
            else:
                values[canonical] = list(value) if isinstance(value, tuple) else value
    return values


def _pairs(name: str, key: str, value: Any, release: str, problems: list[str]) -> list[str]:
    """Return the lines of one key of a file."""
    if key in leads(name).values():
        items = value if isinstance(value, list) else [value]
        return [text for item in items for text in _line_of(name, item, release, problems, key)]
    values = value if isinstance(value, list) and repeats(key, release) and name == "slurm.conf" else [value]
    lines = []
    for one in values:
        text, wrong = value_text(one)
        if wrong:
            problems.append(f"`{key}` of {name} {wrong}")
        else:
            lines.append(line(key, text))
    return lines


def _line_of(name: str, item: Any, release: str, problems: list[str], lead: str = "") -> list[str]:
    """Return a line of several keys, which begins with the key that says what it is."""
    known = leads(name)
    if not isinstance(item, Mapping):
        problems.append(f"{item!r} of {name} is no line; write it as a dict of keys and values.")
        return []
    given = {normal(str(key)): (str(key), value) for key, value in item.items() if value is not None}
    lead = lead or next((known[form] for form in known if form in given), "")
    if not lead or normal(lead) not in given:
        wanted = lead or " or ".join(known.values())
        problems.append(f"The line {dict(item)!r} of {name} has no {wanted}; each line begins with that.")
        return []
    pairs = []
    for form, (key, value) in given.items():
        canonical, wrong = (lead, "") if form == normal(lead) else look_up(name, lead, key, release)
        text, bad = value_text(value)
        if wrong or bad:
            problems.append(wrong or f"`{key}` of {lead} of {name} {bad}")
        elif form != normal(lead):
            pairs.append((canonical, text))
    if normal(lead) == "blockname" and not table(name, lead, release):
        problems.append(f"Slurm {release} knows no lines with `BlockName` in {name}; remove them.")
    return [line(lead, value_text(given[normal(lead)][1])[0], pairs)]


def key_value_text(name: str, layers: Layers, release: str, problems: list[str]) -> str:
    """Return the text of a file other than slurm.conf, or nothing if it has no content."""
    given = [layer[name] for layer in (layers.defaults, layers.owned, layers.options) if layer.get(name)]
    lines: list[str] = []
    if any(isinstance(layer, (list, tuple)) for layer in given):
        for layer in given:
            for item in layer if isinstance(layer, (list, tuple)) else [layer]:
                lines += _line_of(name, item, release, problems)
    elif leads(name) and not table(name, "", release):
        for layer in given:
            lines += _line_of(name, layer, release, problems)
    else:
        values = merged(name, layers, release, problems)
        for key in sorted(values, key=str.lower):
            lines += _pairs(name, key, values[key], release, problems)
    return HEADER + "\n".join(lines) + "\n" if lines else ""


def _partitions(
    items: Iterable[Mapping[str, Any]],
    kinds: Mapping[str, Sequence[str]],
    nodesets: Collection[str],
    release: str,
    problems: list[str],
) -> list[str]:
    everything = [name for names in kinds.values() for name in names]
    known = frozenset(everything)
    lines, seen = [], set()
    folded_everything = fold(everything) if not problems else ""
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping) or not item.get("name"):
            problems.append(f"Partition {number} of slurm_partitions has no name; give it one.")
            continue
        what = f"Partition `{item['name']}` of slurm_partitions"
        if item["name"] in seen:
            problems.append(f"{what} is there twice; rename one.")
        seen.add(item["name"])
        chosen: list[str] = []
        nodes = folded_everything
        if item.get("kinds") is not None or item.get("nodes") is not None:
            for kind in item.get("kinds") or []:
                if kind not in kinds:
                    near = nearest(str(kind), kinds)
                    problems.append(f"{what} names the kind `{kind}`, which isn't there" + _meant(near, "; remove it."))
                chosen += kinds.get(kind, [])
            named = names_of(item.get("nodes") or [], what, problems)
            sets = [name for name in named if name in nodesets or name == "ALL"]
            strangers = [name for name in named if name not in known and name not in sets]
            if strangers:
                problems.append(f"{what} has {fold(strangers)}, which no kind and no inventory has; remove them.")
            chosen += [name for name in named if name in known]
            nodes = ",".join([*([fold(chosen)] if chosen else []), *sets])
        pairs = [("Nodes", nodes)] if nodes else []
        for key, value in item.items():
            if key in ("name", "kinds", "nodes") or value is None:
                continue
            canonical, wrong = look_up("slurm.conf", "PartitionName", key, release)
            text, bad = value_text(value)
            if wrong or bad:
                problems.append(f"{what}: {wrong or f'`{key}` {bad}'}")
            else:
                pairs.append((canonical, text))
        lines.append(line("PartitionName", str(item["name"]), pairs))
    if not lines:
        problems.append("slurm_partitions is empty; a cluster needs a partition.")
    return lines


def _meant(near: str, otherwise: str) -> str:
    return f"; did you mean `{near}`?" if near else otherwise


def render(
    cluster_name: str,
    controllers: Sequence[Mapping[str, Any]],
    nodes: Sequence[str],
    kinds: Iterable[Mapping[str, Any]],
    partitions: Iterable[Mapping[str, Any]],
    layers: Layers,
    release: str,
    hardware: Mapping[str, Hardware],
    memory_factor: float = 0.95,
    reserve: int = 16,
    unmeasured: Collection[str] = (),
) -> Rendered:
    """Return the text of every file of the controllers. Pure.

    Raises InvalidInput with all that is wrong. Hardware that must be measured first is no error: it is in ``missing``.
    """
    problems: list[str] = []
    names = [name for name in layers.files(problems) if name != "slurm.conf"]
    if any("slurmdbd.conf" in layer for layer in (layers.defaults, layers.owned, layers.options)):
        problems.append("slurmdbd.conf is no file of the controllers; the database's host has it.")
    values = merged("slurm.conf", layers, release, problems)
    sets = values.pop("NodeSet", [])
    down = values.pop("DownNodes", [])
    nodesets = {str(item.get("NodeSet")) for item in sets if isinstance(item, Mapping)}
    planned = plan_nodes(nodes, kinds, hardware, release, problems, memory_factor, reserve, unmeasured)
    if planned.memory_per_cpu and _memory_is_shared(values, layers):
        values["DefMemPerCPU"] = planned.memory_per_cpu
    part_lines = _partitions(partitions, planned.kinds, nodesets, release, problems)
    if planned.fixed and not problems:
        others = [str(name) for name in _listed(values.get("SuspendExcNodes"))]
        values["SuspendExcNodes"] = [*others, fold(planned.fixed)]
    lines = [line("ClusterName", cluster_name)]
    for controller in controllers:
        address = controller.get("address")
        lines.append(line("SlurmctldHost", f"{controller['name']}({address})" if address else str(controller["name"])))
    for key in sorted(values, key=str.lower):
        lines += _pairs("slurm.conf", key, values[key], release, problems)
    set_lines = _pairs("slurm.conf", "NodeSet", sets, release, problems) if sets else []
    down_lines = _pairs("slurm.conf", "DownNodes", down, release, problems) if down else []
    files = {name: key_value_text(name, layers, release, problems) for name in names if name in CONTROLLER_FILES}
    if problems:
        raise InvalidInput(join_problems(list(dict.fromkeys(problems))))
    text = HEADER + "\n".join([*lines, *planned.lines, *down_lines, *set_lines, *part_lines]) + "\n"
    written = {name: content for name, content in files.items() if content}
    return Rendered({"slurm.conf": text, **written}, planned.missing)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _memory_is_shared(values: Mapping[str, Any], layers: Layers) -> bool:
    """Return whether jobs get memory by the MB, and nobody said how much one has that asks for none.

    Slurm's own answer is all of the node's: no second job would fit beside it.
    """
    said = {normal(str(key)) for key in layers.options.get("slurm.conf") or {}}
    if said & {"defmempercpu", "defmempernode", "defmempergpu"}:
        return False
    return "memory" in str(values.get("SelectTypeParameters", "")).lower()


def fingerprint(layers: Layers, release: str) -> str:
    """Return a short text that differs if a slurmd that runs would have to be restarted to notice the difference."""
    problems: list[str] = []
    lines: list[str] = []
    for name in sorted(layers.files(problems)):
        if name in ("slurm.conf", "cgroup.conf", "acct_gather.conf", "mpi.conf"):
            values = merged(name, layers, release, problems)
            wanted = [key for key in sorted(values) if needs_slurmd_restart(name, key, release)]
            lines += [f"{name} {text}" for key in wanted for text in _pairs(name, key, values[key], release, problems)]
        elif needs_slurmd_restart(name, "", release):
            lines.append(f"{name} {key_value_text(name, layers, release, problems)}")
    if problems:
        raise InvalidInput(join_problems(list(dict.fromkeys(problems))))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
