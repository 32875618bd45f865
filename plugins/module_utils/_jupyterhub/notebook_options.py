# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may ask for a notebook in Slurm: the form, the check of what came back, and the job's script.

Role jupyterhub installs this file, which imports nothing of the collection and works with Python 3.9.
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "SINFO",
    "START",
    "Hardware",
    "Limits",
    "Partition",
    "Wish",
    "check",
    "form",
    "from_form",
    "job_script",
    "parse_partitions",
]

# One line for each partition and kind of node.
SINFO = ["sinfo", "--noheader", "--exact", "--noconvert", "--format=%P|%a|%l|%D|%c|%m|%G"]
# In the environment, on every host that runs notebooks; see roles/jupyterhub/files.
START = "share/turnkey/start-notebook"
MINUTES = {"days": 1440, "hours": 60, "minutes": 1}


@dataclass(frozen=True)
class Hardware:
    """Nodes of a partition that are alike."""

    nodes: int
    cores: int
    memory_mb: int
    gpus: int = 0


@dataclass(frozen=True)
class Partition:
    """A partition; ``max_minutes`` is 0 if it has no limit."""

    name: str
    max_minutes: int
    kinds: tuple[Hardware, ...]
    default: bool = False

    @property
    def nodes(self) -> int:
        """Number of its nodes."""
        return sum(kind.nodes for kind in self.kinds)


@dataclass(frozen=True)
class Limits:
    """What the site allows and offers first. A limit of 0 is none but Slurm's."""

    partitions: tuple[str, ...] = ()
    max_nodes: int = 0
    max_cores: int = 0
    max_memory_mb: int = 0
    max_minutes: int = 0
    cores: int = 1
    memory_mb: int = 1024
    minutes: int = 240


@dataclass(frozen=True)
class Wish:
    """What a user asks for. Cores, memory and GPUs are those of each node."""

    partition: str
    nodes: int = 1
    cores: int = 1
    memory_mb: int = 1024
    minutes: int = 240
    gpus: int = 0


def minutes_of(text: str) -> int:
    """Return Slurm's time (``1-00:00:00``, ``30:00``, ``infinite``) in minutes; 0 is no limit."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return 0
    days, _dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes = (parts[0], parts[1] if len(parts) > 1 else 0) if days or len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + minutes


def gpus_of(gres: str) -> int:
    """Return the number of GPUs in a list such as ``gpu:a100:4(S:0-1)``."""
    counts = re.findall(r"(?:^|,)gpu(?::[^:,(]+)??(?::(\d+))?(?=[,(]|$)", gres)
    return sum(int(count or 1) for count in counts)


def parse_partitions(text: str) -> list[Partition]:
    """Read what SINFO prints. Partitions that are down, or have no node, are left out."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 7 or fields[1] != "up" or not int(fields[3]):
            continue
        name = fields[0].rstrip("*")
        kind = Hardware(int(fields[3]), int(fields[4]), int(fields[5]), gpus_of(fields[6]))
        before = found[name].kinds if name in found else ()
        found[name] = Partition(name, minutes_of(fields[2]), (*before, kind), fields[0].endswith("*"))
    return sorted(found.values(), key=lambda partition: (not partition.default, partition.name))


def offered(partitions: Sequence[Partition], limits: Limits) -> list[Partition]:
    """Return the partitions that the site offers for notebooks."""
    return [one for one in partitions if not limits.partitions or one.name in limits.partitions]


def most(partition: Partition, limits: Limits) -> dict[str, int]:
    """Return the largest number that each field may have in a partition; 0 is no limit."""

    def least(*values: int) -> int:
        return min((value for value in values if value), default=0)

    return {
        "nodes": least(partition.nodes, limits.max_nodes),
        "cores": least(max(kind.cores for kind in partition.kinds), limits.max_cores),
        "memory_mb": least(max(kind.memory_mb for kind in partition.kinds), limits.max_memory_mb),
        "minutes": least(partition.max_minutes, limits.max_minutes),
        "gpus": max(kind.gpus for kind in partition.kinds),
    }


def hours(minutes: int) -> str:
    """Return a time for people."""
    for unit, size in MINUTES.items():
        if minutes >= size and minutes % size == 0:
            return f"{minutes // size} {unit if minutes != size else unit[:-1]}"
    return f"{minutes} minutes"


def describe(partition: Partition, limits: Limits) -> str:
    """Return a line about a partition."""
    kinds = [
        f"{kind.nodes} x {kind.cores} cores, {kind.memory_mb / 1024:.3g} GB"
        + (f", {kind.gpus} GPU" if kind.gpus else "")
        for kind in partition.kinds
    ]
    longest = most(partition, limits)["minutes"]
    return f"{partition.name}: {'; '.join(kinds)}" + (f"; up to {hours(longest)}" if longest else "")


def form(partitions: Sequence[Partition], limits: Limits) -> str:
    """Return the fields of the form, as HTML."""
    choices = offered(partitions, limits)
    if not choices:
        return (
            '<p class="text-danger">Slurm has no partition for notebooks now, or does not answer. Try again later.</p>'
        )
    options = "".join(
        f'<option value="{html.escape(one.name)}">{html.escape(describe(one, limits))}</option>' for one in choices
    )
    best = {name: max(most(one, limits)[name] for one in choices) for name in most(choices[0], limits)}
    if not all(most(one, limits)["minutes"] for one in choices):
        best["minutes"] = 0
    memory = min(limits.memory_mb, best["memory_mb"])
    fields = [
        ("nodes", "Nodes", 1, 1, best["nodes"], "1"),
        ("cores", "Cores on each node", min(limits.cores, best["cores"]), 1, best["cores"], "1"),
        ("memory_gb", "Memory on each node, in GB", f"{memory / 1024:.3g}", "0.1", f"{best['memory_mb'] / 1024:.4g}",
         "any"),
        ("hours", "Time, in hours", f"{min(limits.minutes, best['minutes'] or limits.minutes) / 60:.3g}", "0.1",
         f"{best['minutes'] / 60:.4g}" if best["minutes"] else "", "any"),
    ]  # fmt: skip
    if best["gpus"]:
        fields.append(("gpus", "GPUs on each node", 0, 0, best["gpus"], "1"))
    rows = [
        '<div class="mb-3"><label class="form-label" for="partition">Partition</label>'
        f'<select class="form-select form-control" id="partition" name="partition">{options}</select></div>'
    ]
    for name, label, value, low, high, step in fields:
        rows.append(
            f'<div class="mb-3"><label class="form-label" for="{name}">{label}</label>'
            f'<input class="form-control" type="number" id="{name}" name="{name}" value="{value}" min="{low}"'
            + (f' max="{high}"' if high != "" else "")
            + f' step="{step}" required></div>'
        )
    return "\n".join(rows)


def from_form(data: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the fields of a form that was sent, as numbers where they are."""
    result: dict[str, Any] = {name: values[0].strip() for name, values in data.items() if values and values[0].strip()}
    for name, field, factor in (("memory_gb", "memory_mb", 1024), ("hours", "minutes", 60)):
        if name in result:
            try:
                result[field] = round(float(result.pop(name)) * factor)
            except (ValueError, OverflowError):
                result[field] = data[name][0]
    return result


def check(options: Mapping[str, Any], partitions: Sequence[Partition], limits: Limits) -> Wish:
    """Return what is asked for, or raise ValueError with all that is wrong. It came from a browser: trust nothing."""
    choices = {one.name: one for one in offered(partitions, limits)}
    if not choices:
        raise ValueError("Slurm has no partition for notebooks now, or does not answer. Try again later.")
    problems = [
        f"{name} is no field."
        for name in options
        if name not in ("partition", "nodes", "cores", "memory_mb", "minutes", "gpus")
    ]
    name = str(options.get("partition") or next(iter(choices)))
    if name not in choices:
        raise ValueError(f"There is no partition {name!r} for notebooks. Choose one of {', '.join(choices)}.")
    partition, allowed = choices[name], most(choices[name], limits)
    first = {
        "nodes": 1,
        "cores": min(limits.cores, allowed["cores"]),
        "memory_mb": min(limits.memory_mb, allowed["memory_mb"]),
        "minutes": min(limits.minutes, allowed["minutes"] or limits.minutes),
        "gpus": 0,
    }
    labels = {
        "nodes": "Nodes",
        "cores": "Cores",
        "memory_mb": "Memory in MB",
        "minutes": "Time in minutes",
        "gpus": "GPUs",
    }
    numbers: dict[str, int] = {}
    for field, label in labels.items():
        value = options.get(field, first[field])
        if not re.fullmatch(r"\d{1,9}", str(value)):
            problems.append(f"{label}: {value!r} is no whole number.")
            continue
        number, low, high = int(value), int(field != "gpus"), allowed[field]
        if number < low:
            problems.append(f"{label}: {number} is too little.")
        elif number > high and (high or field == "gpus"):
            problems.append(f"{label}: {number} is more than the {high} that partition {name} gives.")
        numbers[field] = number
    fitting = [
        kind
        for kind in partition.kinds
        if all(getattr(kind, field) >= numbers.get(field, 0) for field in ("cores", "memory_mb", "gpus"))
    ]
    if not problems and sum(kind.nodes for kind in fitting) < numbers["nodes"]:
        problems.append(
            f"Partition {name} has no {numbers['nodes']} nodes with {numbers['cores']} cores, "
            f"{numbers['memory_mb']} MB and {numbers['gpus']} GPUs each."
        )
    if problems:
        raise ValueError(" ".join(problems))
    return Wish(name, **numbers)


def job_script(
    wish: Wish, command: Sequence[str], name: str, work_dir: str, environment: str, variables: Sequence[str]
) -> str:
    """Return the script of the job. It runs on its first node as the user."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --partition={wish.partition}",
        f"#SBATCH --nodes={wish.nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --cpus-per-task={wish.cores}",
        f"#SBATCH --mem={wish.memory_mb}M",
        f"#SBATCH --time={wish.minutes}",
        *([f"#SBATCH --gres=gpu:{wish.gpus}"] if wish.gpus else []),
        # A notebook that was lost with its node is started by its user, not behind their back.
        "#SBATCH --no-requeue",
        "#SBATCH --chdir=/",
        # The log is the user's; where it can go is known on the node only.
        "#SBATCH --output=/dev/null",
        f"#SBATCH --export={','.join(variables)}",
        # It would be handed on to what the notebook starts through Slurm.
        "unset SLURM_EXPORT_ENV",
        f"exec {shlex.join(['/bin/bash', environment + '/' + START, work_dir, *command])}",
    ]
    return "\n".join(lines) + "\n"
