# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of nodes and what was measured on them become the few NodeName lines of slurm.conf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold, natural_key
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import look_up, normal
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.text import line, value_text

__all__ = ["CPU_KEYS", "Hardware", "Nodes", "fold_records", "names_of", "plan_nodes", "unfold_records"]

# What a node reports: cpus, memory_mb and, unless its CPUs are irregular, sockets, cores_per_socket, threads_per_core.
Hardware = Mapping[str, int]

DEFAULT_KIND = "default"
# So many stems (`r1n` of r1n07) may have names kept free; with more, the free names would outnumber the nodes.
MAX_STEMS = 8
CPU_KEYS = frozenset({"cpus", "procs", "boards", "sockets", "socketsperboard", "corespersocket", "threadspercore"})
_ORDER = ("CPUs", "Boards", "Sockets", "SocketsPerBoard", "CoresPerSocket", "ThreadsPerCore", "RealMemory", "Gres")
_STATES = frozenset({"CLOUD", "DOWN", "DRAIN", "EXTERNAL", "FAIL", "FAILING", "FUTURE", "UNKNOWN"})


@dataclass(frozen=True)
class Kind:
    """Nodes that are declared together. ``names`` is nothing for those that no other kind has."""

    name: str
    names: tuple[str, ...] | None
    attributes: Mapping[str, str]
    elastic: bool = False
    """Its machines come and go; see ``_elastic``."""

    @property
    def state(self) -> str:
        """The state that is declared, or nothing."""
        return self.attributes.get("State", "")

    @property
    def cpus_declared(self) -> bool:
        """Whether CPUs are declared in one way or another."""
        return any(normal(key) in CPU_KEYS for key in self.attributes)

    @property
    def measured(self) -> bool:
        """Whether nodes must be asked for what is not declared."""
        return not (self.cpus_declared and "RealMemory" in self.attributes)


@dataclass
class Nodes:
    """The lines, who is of which kind, and whose hardware must be measured before there can be lines.

    ``memory_per_cpu`` is in MB, of the node that has least; 0 if nothing is known.
    """

    lines: list[str] = field(default_factory=list)
    memory_per_cpu: int = 0
    kinds: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    """Where there are elastic nodes: all others, with the names that are kept free. Power saving leaves them alone."""

    @property
    def names(self) -> list[str]:
        """All nodes that partitions may have."""
        return [name for names in self.kinds.values() for name in names]


def names_of(value: object, what: str, problems: list[str]) -> list[str]:
    """Return the names in a list or in a host list such as `node[1-3]`."""
    items = value if isinstance(value, (list, tuple)) else [value]
    names: list[str] = []
    for item in items:
        try:
            names.extend(expand(str(item)))
        except InvalidInput as error:
            problems.append(f"{what}: {error}")
    return names


def parse_kinds(items: Iterable[Mapping[str, Any]], release: str, problems: list[str]) -> list[Kind]:
    """Return the declared kinds, with keys as Slurm writes them."""
    kinds: list[Kind] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping) or not item.get("name"):
            problems.append(f"Kind {number} of slurm_node_kinds has no name; give it one.")
            continue
        name, what = str(item["name"]), f"Kind `{item['name']}` of slurm_node_kinds"
        names: tuple[str, ...] | None = None
        attributes: dict[str, str] = {}
        for key, value in item.items():
            if key in ("name", "provider", "machine") or value is None:
                continue
            if key == "nodes":
                names = tuple(names_of(value, what, problems))
                continue
            canonical, wrong = look_up("slurm.conf", "NodeName", "RealMemory" if key == "memory_mb" else key, release)
            if wrong:
                problems.append(f"{what}: {wrong}")
                continue
            text, wrong = value_text(value)
            if wrong:
                problems.append(f"{what}: `{key}` {wrong}")
            attributes[canonical] = text
        elastic = bool(item.get("provider"))
        if elastic:
            problems += _elastic_problems(what, names, attributes)
            attributes["State"] = "CLOUD"
        elif item.get("machine"):
            problems.append(f"{what} has a `machine` but no `provider`; give the provider that makes it.")
        state = attributes.get("State", "UNKNOWN").upper()
        if state not in _STATES:
            problems.append(f"{what} has the state {state}; use one of {', '.join(sorted(_STATES))}, or none.")
        if state != "UNKNOWN":
            attributes["State"] = state
        else:
            attributes.pop("State", None)
        kinds.append(Kind(name, names, attributes, elastic))
    repeated = [name for name, count in Counter(kind.name for kind in kinds).items() if count > 1]
    problems += [f"slurm_node_kinds has two kinds called `{name}`; rename one." for name in repeated]
    rest = [kind.name for kind in kinds if kind.names is None]
    if len(rest) > 1:
        problems.append(f"The kinds {', '.join(rest)} of slurm_node_kinds have no `nodes`; only one may take the rest.")
    if not rest:
        kinds.append(Kind(DEFAULT_KIND, None, {}))
    return kinds


def _elastic_problems(what: str, names: Collection[str] | None, attributes: Mapping[str, str]) -> list[str]:
    """Return what is wrong with an elastic kind. What its machines have was asked of their provider (``figures``)."""
    problems = []
    if not names:
        problems.append(f"{what} has a `provider` but no `nodes`; give the names of its nodes.")
    if attributes.get("State", "CLOUD").upper() != "CLOUD":
        problems.append(f"{what} has a `provider` and the state {attributes['State']}; remove the state.")
    return problems


def memory_of(reported_mb: int, factor: float) -> int:
    """Return the memory to promise: a part of what is reported, in three digits, so that equal machines look equal."""
    promised = int(reported_mb * factor)
    unit = int(10 ** max(len(str(promised)) - 3, 0))
    return promised // unit * unit


def _attributes(kind: Kind, hardware: Hardware | None, factor: float) -> dict[str, str]:
    """Return what the line of a node says of it."""
    found = dict(kind.attributes)
    if hardware and not kind.cpus_declared:
        found["CPUs"] = str(hardware["cpus"])
        if "sockets" in hardware:
            found["Sockets"] = str(hardware["sockets"])
            found["CoresPerSocket"] = str(hardware["cores_per_socket"])
            found["ThreadsPerCore"] = str(hardware["threads_per_core"])
    if hardware and "RealMemory" not in found:
        found["RealMemory"] = str(memory_of(hardware["memory_mb"], factor))
    return found


def _memory_per_cpu(attributes: Iterable[tuple[str, str]]) -> int:
    """Return the part of a node's memory that belongs to one of its CPUs, in MB, or 0 if the line doesn't say."""
    numbers = {normal(key): int(value) for key, value in attributes if value.isdigit()}
    sockets = numbers.get("sockets", numbers.get("boards", 1) * numbers.get("socketsperboard", 1))
    whole = sockets * numbers.get("corespersocket", 1) * numbers.get("threadspercore", 1)
    cpus = numbers.get("cpus", numbers.get("procs", whole))
    return numbers.get("realmemory", 0) // max(cpus, 1)


def _sorted(attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    first = [key for key in _ORDER if key in attributes]
    rest = sorted(key for key in attributes if key not in _ORDER and key != "State")
    last = ["State"] if "State" in attributes else []
    return tuple((key, attributes[key]) for key in [*first, *rest, *last])


def plan_nodes(
    fixed: Sequence[str],
    kinds: Iterable[Mapping[str, Any]],
    hardware: Mapping[str, Hardware],
    release: str,
    problems: list[str],
    memory_factor: float = 0.95,
    reserve: int = 16,
    unmeasured: Collection[str] = (),
) -> Nodes:
    """Return the NodeName lines for the ``fixed`` nodes and those that kinds declare besides. Pure.

    What is wrong is added to ``problems``. ``unmeasured`` nodes did not answer: they get no line this time.
    """
    known, result = parse_kinds(kinds, release, problems), Nodes()
    owner: dict[str, str] = {}
    for kind in known:
        for name in kind.names or ():
            if owner.setdefault(name, kind.name) != kind.name:
                problems.append(f"Node {name} is in the kinds {owner[name]} and {kind.name}; leave it in one.")
    inventory = dict.fromkeys(fixed)
    skipped = frozenset(unmeasured)
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    free: dict[tuple[tuple[str, str], ...], list[str]] = {}
    taken = {*owner, *inventory}
    for kind in known:
        members = [
            name for name in (inventory if kind.names is None else kind.names) if kind.names or name not in owner
        ]
        spare: list[str] = []
        if kind.names is not None and not kind.state:
            members, spare = (
                [name for name in members if name in inventory],
                [name for name in members if name not in inventory],
            )
        members = [name for name in members if not (kind.measured and name in skipped)]
        here: Counter[tuple[tuple[str, str], ...]] = Counter()
        lacking = []
        for name in members:
            if kind.measured and name not in hardware:
                lacking.append(name)
                continue
            attributes = _sorted(_attributes(kind, hardware.get(name) if kind.measured else None, memory_factor))
            groups.setdefault(attributes, []).append(name)
            here[attributes] += 1
        outside = [name for name in lacking if name not in inventory]
        if outside:
            problems.append(
                f"{fold(outside)} of the kind `{kind.name}` can't be measured, being no hosts of the inventory; "
                f"declare cpus and memory_mb in that kind."
            )
        result.missing += [name for name in lacking if name in inventory]
        result.kinds[kind.name] = members
        if not kind.elastic:
            result.fixed += members
        if not kind.state and kind.names is None:
            spare = _names_to_come(members, reserve, taken)
            taken.update(spare)
        if not kind.elastic:
            result.fixed += spare
        like = here.most_common(1)[0][0] if here else _sorted(kind.attributes) if not kind.measured else None
        if spare and like is not None:
            free.setdefault((*like, ("State", "FUTURE")), []).extend(spare)
    if not any(kind.elastic for kind in known):
        result.fixed.clear()
    shares = [share for share in map(_memory_per_cpu, groups) if share]
    result.memory_per_cpu = min(shares, default=0)
    if not problems:
        for found in (groups, free):
            lines = [line("NodeName", fold(names), attributes) for attributes, names in found.items()]
            result.lines += sorted(lines, key=natural_key)
    return result


def _names_to_come(names: Sequence[str], reserve: int, taken: Collection[str]) -> list[str]:
    """Return the names that are not used yet in the blocks of ``reserve`` numbers in which ``names`` lie.

    The blocks don't depend on which numbers are in use. So a node that comes or goes doesn't change the set of all
    names, which slurmctld can't change while it runs.
    """
    stems: dict[str, list[str]] = {}
    for name in names:
        stem = name.rstrip("0123456789")
        if stem != name:
            stems.setdefault(stem, []).append(name[len(stem) :])
    if reserve < 1 or len(stems) > MAX_STEMS:
        return []
    found = []
    for stem, numbers in stems.items():
        width = max((len(number) for number in numbers if number[0] == "0"), default=1)
        highest = 10**width if width > 1 else 10**15
        for block in sorted({(int(number) - 1) // reserve for number in numbers}):
            for number in range(max(block * reserve + 1, 0), min((block + 1) * reserve + 1, highest)):
                name = f"{stem}{number:0{width}d}"
                if name not in taken:
                    found.append(name)
    return found


def fold_records(hardware: Mapping[str, Hardware]) -> list[dict[str, Any]]:
    """Return records of hardware with equal ones together, for storing."""
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name, values in hardware.items():
        groups.setdefault(tuple(sorted(values.items())), []).append(name)
    folded: list[dict[str, Any]] = [{"nodes": fold(names), **dict(values)} for values, names in groups.items()]
    return sorted(folded, key=lambda record: natural_key(str(record["nodes"])))


def unfold_records(records: Iterable[Mapping[str, Any]]) -> dict[str, Hardware]:
    """Return what ``fold_records`` folded."""
    found: dict[str, Hardware] = {}
    for record in records:
        values = {key: int(value) for key, value in record.items() if key != "nodes"}
        found.update(dict.fromkeys(expand(str(record["nodes"])), values))
    return found
