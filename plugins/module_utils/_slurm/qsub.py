# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``qsub`` for Slurm: what Grid Engine and PBS users write, as options of sbatch.

Role slurm installs this file, which imports nothing of the collection and works with Python 3.9.
On the node where the job starts, the same file sets the variables that job scripts expect (NSLOTS, PBS_NODEFILE ...).
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, NamedTuple

__all__ = ["Job", "job_environment", "main", "sbatch_argv", "script_text", "translate"]

# The command, on every host.
PROGRAM = "/usr/local/bin/qsub"
SUBMITTED = "# The job's script, as it was submitted:\n"
ACROSS_NODES = (
    "mpi",
    "openmpi",
    "orte",
    "ompi",
    "mpich",
    "mpich2",
    "mvapich",
    "impi",
    "intelmpi",
    "round_robin",
    "fill_up",
)
ON_ONE_NODE = ("smp", "openmp", "omp", "threaded", "threads", "shm", "shared", "multicore", "mpi_smp")
# The order is that of the units' sizes. Grid Engine: k is 1000 and K is 1024; PBS: kb is 1024.
SIZES = {"": 1, "b": 1, "k": 1000, "K": 1024, "kb": 1024, "m": 1000**2, "M": 1024**2, "mb": 1024**2, "g": 1000**3}
SIZES.update({"G": 1024**3, "gb": 1024**3, "t": 1000**4, "T": 1024**4, "tb": 1024**4})
SLURMS_OWN = "A line '#SBATCH --option=value' in the script goes to Slurm as it is."

SLURM_WAY = {
    "-I": "an interactive job is 'srun --pty bash'",
    "-X": "a graphical program runs in 'srun --x11 PROGRAM', where X11 forwarding is switched on",
    "-ar": "#SBATCH --reservation=NAME",
    "-binding": "#SBATCH --hint=..., or 'srun --cpu-bind=...' in the script",
    "-c": "let the program write its state on a signal: #SBATCH --signal=B:USR1@300",
    "-ckpt": "let the program write its state on a signal: #SBATCH --signal=B:USR1@300",
    "-dl": "#SBATCH --deadline=TIME",
    "-inherit": "'srun' starts a program inside of a job",
    "-jc": "put the options into the script",
    "-js": "#SBATCH --nice=NUMBER",
    "-masterq": "#SBATCH --partition=NAME for the whole job",
    "-now": "'srun --immediate PROGRAM' gives up if it can't start at once",
    "-soft": "#SBATCH --prefer=FEATURES",
    "-u": "jobs run as the user who submits them",
}
"""Options of Grid Engine and PBS that sbatch has no equal for, and what to do instead."""


@dataclass
class Job:
    """What is to be submitted. ``options`` are sbatch's long ones; the value of a switch is empty."""

    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    name: str = ""
    output: str = ""
    error: str = ""
    join: bool = False
    array: str = ""
    array_limit: str = ""
    shell: str = ""
    binary: bool = False
    terse: bool = False
    wait: bool = False
    pbs: bool = False
    parallel_environment: str = ""
    wait_for: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    script: str = ""


class Unusable(ValueError):
    """A value that can't be translated. The text says what would do."""


class Option(NamedTuple):
    """One option: whether a value follows it, and what it does to the job."""

    takes_value: bool
    apply: Callable[[Job, str], None]


# --- values ----------------------------------------------------------------------------------------------------------


def seconds(text: str) -> int:
    """Return the seconds in ``text``: a number of them, or ``[[days:]hours:]minutes:seconds``."""
    parts = text.split(":")
    if len(parts) > 4 or not all(part.isdigit() for part in parts):
        raise Unusable(f"{text!r} is not a time, write seconds or hours:minutes:seconds")
    units = (1, 60, 3600, 86400)
    return sum(int(part) * unit for part, unit in zip(reversed(parts), units))


def slurm_time(text: str) -> str:
    """Return a time limit in Slurm's notation."""
    if text.upper() in ("INFINITY", "UNLIMITED"):
        return "UNLIMITED"
    total = seconds(text)
    days, rest = divmod(total, 86400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def slurm_size(text: str) -> str:
    """Return a memory size in Slurm's MiB, rounded up."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    unit = found[2] if found and found[2] in SIZES else found[2].lower() if found else "?"
    if not found or unit not in SIZES:
        raise Unusable(f"{text!r} is not an amount of memory, write for instance 4G or 512mb")
    return f"{max(1, math.ceil(float(found[1]) * SIZES[unit] / 1024**2))}M"


def number(text: str) -> str:
    """Return a whole number above 0."""
    if not text.isdigit() or not int(text):
        raise Unusable(f"{text!r} is not a number of 1 or more")
    return str(int(text))


def switch(text: str) -> bool:
    """Return what ``y`` or ``n`` says."""
    if text.lower() in ("y", "yes", "true", "1"):
        return True
    if text.lower() in ("n", "no", "false", "0"):
        return False
    raise Unusable(f"{text!r} is neither y nor n")


def slurm_begin(text: str) -> str:
    """Return a start time; Grid Engine and PBS write ``[[CC]YY]MMDDhhmm[.SS]``, PBS the time of day as well."""
    found = re.fullmatch(r"(?:(?:(\d\d)?(\d\d))?(\d\d)(\d\d))?(\d\d)(\d\d)(?:\.(\d\d))?", text)
    if not found:
        raise Unusable(f"{text!r} is not a time, write [[CC]YY]MMDDhhmm[.SS]")
    century, year, month, day, hour, minute, second = found.groups()
    clock = f"{hour}:{minute}:{second or '00'}"
    if month is None:
        return clock
    if year is None:
        return f"{month}/{day}-{clock}"
    return f"{century or '20'}{year}-{month}-{day}T{clock}"


def file_pattern(text: str, array: bool) -> str:
    """Return a path for sbatch; ``host:`` before it is dropped, and the variables of job and task become patterns."""
    path = re.sub(r"^[\w.-]*:(?=[/~$.\w])", "", text).replace("%", "%%")
    path = re.sub(r"^(~|\$\{?HOME\}?)(?=/|$)", lambda _found: str(Path.home()), path)
    patterns = {"JOB_NAME": "%x", "PBS_JOBNAME": "%x", "JOB_ID": "%A" if array else "%j", "USER": "%u"}
    patterns.update({"PBS_JOBID": patterns["JOB_ID"], "TASK_ID": "%a", "SGE_TASK_ID": "%a", "PBS_ARRAYID": "%a"})
    patterns.update({"PBS_ARRAY_INDEX": "%a", "HOSTNAME": "%N", "HOST": "%N"})
    path = re.sub(r"\$\{?(\w+)\}?", lambda found: patterns.get(found[1], found[0]), path)
    return path.replace("^array_index^", "%a")


# --- options ---------------------------------------------------------------------------------------------------------


def to(option: str, convert: Callable[[str], str] = str) -> Option:
    """An option that is one of sbatch's under another name."""

    def apply(job: Job, value: str) -> None:
        job.options[option] = convert(value)

    return Option(True, apply)


def store(attribute: str, convert: Callable[[str], object] = str) -> Option:
    """An option that is kept for later."""
    return Option(True, lambda job, value: setattr(job, attribute, convert(value)))


def flag(option: str, value: str = "") -> Option:
    """A switch that is one or none of sbatch's."""
    return Option(False, lambda job, _value: job.options.update({option: value} if option else {}))


def parallel_environment(job: Job, value: str) -> None:
    """``-pe NAME SLOTS``: a slot is a core of its own, and a rank of MPI."""
    name, _blank, slots = value.partition(" ")
    if not slots.isdigit():
        raise Unusable(f"{slots!r} is not a number of slots; Slurm knows no range, name one number")
    job.options["--ntasks"] = number(slots)
    job.parallel_environment = name
    if name in ON_ONE_NODE:
        job.options["--nodes"] = "1"
    elif name not in ACROSS_NODES:
        raise Unusable(f"{name!r} is not known; use 'mpi' for slots on any nodes, or 'smp' for slots on one node")


def array_range(job: Job, value: str) -> None:
    """``-t 1-10:2`` of Grid Engine, ``-t 1,3-5%2`` of Torque, ``-J 1-10`` of PBS Pro."""
    tasks, _percent, limit = value.partition("%")
    if not re.fullmatch(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*", tasks) or (limit and not limit.isdigit()):
        raise Unusable(f"{value!r} is no range of tasks, write 1-10, 1-10:2 or 1,5,7")
    job.array, job.array_limit = tasks, limit or job.array_limit


def join_output(job: Job, value: str) -> None:
    """``-j y`` of Grid Engine, ``-j oe`` of PBS."""
    if value in ("oe", "eo"):
        job.join, job.pbs = True, True
    else:
        job.join = switch(value)


def mail_on(job: Job, value: str) -> None:
    """``-m abe``."""
    kinds = {"a": "FAIL", "b": "BEGIN", "e": "END", "s": "NONE", "n": "NONE"}
    if not value or set(value) - set(kinds):
        raise Unusable(f"{value!r} must be made of a (aborted), b (begins), e (ends), or be n")
    job.options["--mail-type"] = ",".join(kinds[letter] for letter in value)


def mail_to(value: str) -> str:
    """Sbatch knows one address."""
    if "," in value:
        raise Unusable("Slurm writes to one address, use that of a list")
    return value


def priority(value: str) -> str:
    """A high priority is little niceness."""
    if not re.fullmatch(r"[+-]?\d+", value):
        raise Unusable(f"{value!r} is not a whole number")
    return str(-int(value))


def variables(job: Job, value: str) -> None:
    """``-v A=1,B``: sbatch hands on its whole environment, so they are put there. Quotes protect commas."""
    for part in re.findall(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""", value):
        name, equals, text = part.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise Unusable(f"{name!r} is not the name of a variable")
        if equals:
            job.environment[name] = re.sub(r"""^(['"])(.*)\1$""", r"\2", text)


def after(job: Job, value: str, kind: str = "afterany") -> None:
    """``-hold_jid``: numbers, or names and patterns of own jobs."""
    job.wait_for += [(kind, reference) for reference in value.split(",") if reference]


def attributes(job: Job, value: str) -> None:
    """``-W depend=afterok:12`` and ``-W block=true`` of PBS."""
    job.pbs = True
    name, _equals, text = value.partition("=")
    if name == "block":
        job.wait = switch(text or "true")
        return
    if name != "depend":
        raise Unusable(f"{name!r} is not translated, only depend and block are. {SLURMS_OWN}")
    for part in text.split(","):
        kind, *references = part.split(":")
        if kind not in ("after", "afterok", "afternotok", "afterany") or not references:
            raise Unusable(f"{part!r}: only after, afterok, afternotok and afterany with numbers of jobs are known")
        job.wait_for += [(kind, reference) for reference in references]


def validate_or_directory(job: Job, value: str) -> None:
    """``-w e`` of Grid Engine, or the directory of PBS Pro."""
    if value == "v":
        job.options["--test-only"] = ""
    elif value not in ("e", "w", "n", "p"):
        job.options["--chdir"] = value


def resources(job: Job, value: str) -> None:
    """``-l``: the first problem is enough, the list is a line of the user's."""
    for part in re.findall(r"(?:[^,\"]|\"[^\"]*\")+", value):
        name, equals, text = part.strip().partition("=")
        handler = RESOURCES.get(name)
        if handler is None:
            near = difflib.get_close_matches(name, RESOURCES, 1)
            raise Unusable(
                f"resource {name!r} is not known{f', did you mean {near[0]!r}?' if near else '.'} {SLURMS_OWN}"
            )
        handler(job, text if equals else "true")


def more_memory(option: str) -> Callable[[Job, str], None]:
    """Several names of one limit may be given; the largest holds."""

    def apply(job: Job, value: str) -> None:
        size = slurm_size(value)
        job.options[option] = max(size, job.options.get(option, "0M"), key=lambda text: int(text[:-1]))

    return apply


def pbs_nodes(job: Job, value: str) -> None:
    """``-l nodes=2:ppn=4:gpus=1:feature`` or ``-l nodes=node1+node2`` of PBS."""
    job.pbs = True
    first, *properties = value.split(":")
    if "+" in value:
        if properties:
            raise Unusable(f"{value!r}: nodes of several kinds in one job are '#SBATCH hetjob' parts")
        job.options.update({"--nodelist": value.replace("+", ","), "--nodes": str(value.count("+") + 1)})
        return
    if first.isdigit():
        job.options["--nodes"] = number(first)
    else:
        job.options.update({"--nodes": "1", "--nodelist": first})
    features = []
    for item in properties:
        name, equals, text = item.partition("=")
        if not equals:
            features.append(name)
        elif name == "ppn":
            job.options["--ntasks-per-node"] = number(text)
        elif name == "gpus":
            job.options["--gpus-per-node"] = number(text)
        else:
            raise Unusable(f"{item!r} of {value!r} is not known. {SLURMS_OWN}")
    if features:
        job.options["--constraint"] = "&".join(features)


def pbs_select(job: Job, value: str) -> None:
    """``-l select=2:ncpus=8:mpiprocs=4:mem=16gb:ngpus=1`` of PBS Pro; a chunk is a node here."""
    job.pbs = True
    if "+" in value:
        raise Unusable(f"{value!r}: chunks of several kinds in one job are '#SBATCH hetjob' parts")
    count, *properties = value.split(":")
    given = dict(item.partition("=")[::2] for item in properties)
    unknown = sorted(set(given) - {"ncpus", "mpiprocs", "ompthreads", "mem", "ngpus", "host"})
    if unknown:
        raise Unusable(f"{unknown[0]!r} of {value!r} is not known. {SLURMS_OWN}")
    ranks = int(number(given.get("mpiprocs", "1")))
    job.options.update({"--nodes": number(count), "--ntasks-per-node": str(ranks)})
    if "ncpus" in given:
        job.options["--cpus-per-task"] = str(math.ceil(int(number(given["ncpus"])) / ranks))
    if "ompthreads" in given:
        job.environment["OMP_NUM_THREADS"] = number(given["ompthreads"])
    if "mem" in given:
        job.options["--mem"] = slurm_size(given["mem"])
    if "ngpus" in given:
        job.options["--gpus-per-node"] = number(given["ngpus"])
    if "host" in given:
        job.options["--nodelist"] = given["host"]


def set_to(option: str, convert: Callable[[str], str] = str, pbs: bool = False) -> Callable[[Job, str], None]:
    """A resource that is one of sbatch's options; ``pbs``: only PBS has it."""

    def apply(job: Job, value: str) -> None:
        job.options[option] = convert(value)
        job.pbs = job.pbs or pbs

    return apply


def exclusive(job: Job, value: str) -> None:
    """Whole nodes."""
    if switch(value):
        job.options["--exclusive"] = ""


def place(job: Job, value: str) -> None:
    """``-l place=scatter:excl`` of PBS Pro; a chunk is a node here anyway."""
    job.pbs = True
    for word in value.split(":"):
        if word in ("excl", "exclhost"):
            job.options["--exclusive"] = ""
        elif word not in ("scatter", "free", "shared"):
            raise Unusable(f"{word!r} of place={value} is not known, only scatter, free, shared and excl are")


RESOURCES: dict[str, Callable[[Job, str], None]] = {
    "h_rt": set_to("--time", slurm_time),
    "walltime": set_to("--time", slurm_time, pbs=True),
    **dict.fromkeys(
        ("h_vmem", "s_vmem", "h_rss", "mem_free", "mf", "virtual_free", "vf"), more_memory("--mem-per-cpu")
    ),
    **dict.fromkeys(("pmem", "pvmem"), more_memory("--mem-per-cpu")),
    **dict.fromkeys(("mem", "vmem"), more_memory("--mem")),
    **dict.fromkeys(("hostname", "h"), set_to("--nodelist", lambda text: text.replace("|", ","))),
    **dict.fromkeys(("qname", "q"), set_to("--partition")),
    **dict.fromkeys(("gpu", "gpus", "ngpus"), set_to("--gpus", number)),
    **dict.fromkeys(("exclusive", "excl"), exclusive),
    "ncpus": set_to("--cpus-per-task", number, pbs=True),
    "procs": set_to("--ntasks", number, pbs=True),
    "file": set_to("--tmp", slurm_size, pbs=True),
    "nodes": pbs_nodes,
    "select": pbs_select,
    "place": place,
}

OPTIONS: dict[str, Option] = {
    "-A": to("--account"),
    "-C": Option(True, lambda job, value: None),
    "-F": Option(True, lambda job, value: job.arguments.extend(shlex.split(value))),
    "-J": Option(True, array_range),
    "-M": to("--mail-user", mail_to),
    "-N": store("name"),
    "-P": to("--account"),
    "-R": Option(True, lambda job, value: None),  # every waiting job has its place in Slurm's plan
    "-S": store("shell"),
    "-V": flag("--export", "ALL"),
    "-W": Option(True, attributes),
    "-a": to("--begin", slurm_begin),
    "-b": store("binary", switch),
    "-cwd": flag(""),
    "-d": to("--chdir"),
    "-e": store("error"),
    "-h": flag("--hold"),
    "-hard": flag(""),
    "-hold_jid": Option(True, after),
    "-hold_jid_ad": Option(True, lambda job, value: after(job, value, "aftercorr")),
    "-j": Option(True, join_output),
    "-k": Option(True, lambda job, value: None),  # output is written where it stays anyway
    "-l": Option(True, resources),
    "-m": Option(True, mail_on),
    "-notify": flag("--signal", "B:USR2@60"),
    "-o": store("output"),
    "-p": to("--nice", priority),
    "-pe": Option(True, parallel_environment),
    "-q": to("--partition", lambda text: text.partition("@")[0]),
    "-r": Option(True, lambda job, value: job.options.update({"--requeue" if switch(value) else "--no-requeue": ""})),
    "-shell": Option(True, lambda job, value: None),
    "-sync": store("wait", switch),
    "-t": Option(True, array_range),
    "-tc": store("array_limit", number),
    "-terse": Option(False, lambda job, value: setattr(job, "terse", True)),
    "-v": Option(True, variables),
    "-verify": flag("--test-only"),
    "-w": Option(True, validate_or_directory),
    "-wd": to("--chdir"),
    "-z": Option(False, lambda job, value: None),
}

# PBS lets a value follow its letter without a blank: -lnodes=2, -joe. Only what can't be a misspelt long option counts.
JOINED = re.compile(
    r"(-l)([\w.]+=.*)|(-j)(oe|eo|n)|(-m)([abens]+)|(-W)(\w+=.*)|(-[NAM])(.+)|(-[oe])([/.~$].*)|(-t)(\d.*)"
)


class Given(NamedTuple):
    """One option that the user wrote, and where."""

    name: str
    value: str
    where: str


def parse(words: Sequence[str], where: str, problems: list[str]) -> tuple[list[Given], list[str]]:
    """Take the options off the front of ``words``, and return what is left as well."""
    given: list[Given] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        joined = JOINED.fullmatch(word) if word not in OPTIONS and word not in SLURM_WAY else None
        if joined:
            word, value = [part for part in joined.groups() if part is not None]
            rest.insert(0, value)
        if word in SLURM_WAY:
            problems.append(f"{where}: option {word} has no equal. The Slurm way: {SLURM_WAY[word]}.")
        elif word not in OPTIONS:
            near = difflib.get_close_matches(word, OPTIONS, 1)
            hint = f", did you mean {near[0]}?" if near else "."
            problems.append(f"{where}: option {word} is not known{hint} {SLURMS_OWN}")
        if word not in OPTIONS:
            # What follows may be its value; the next option may be wrong, too.
            while rest and not rest[0].startswith("-"):
                rest.pop(0)
            continue
        wanted = 2 if word == "-pe" else int(OPTIONS[word].takes_value)
        if len(rest) < wanted:
            problems.append(f"{where}: option {word} needs {'a name and a number' if wanted == 2 else 'a value'}.")
            break
        given.append(Given(word, " ".join(rest[:wanted]), where))
        del rest[:wanted]
    return given, rest


def directives(script: str, name: str, prefix: str, problems: list[str]) -> tuple[list[Given], bool]:
    """Return the options in the lines of a script that begin with ``prefix`` or ``#PBS``, and whether it is PBS's."""
    given: list[Given] = []
    kinds: set[str] = set()
    for count, line in enumerate(script.splitlines(), start=1):
        marker = next((mark for mark in (prefix, "#PBS") if mark and re.match(re.escape(mark) + r"\s", line)), None)
        if marker is None:
            continue
        where = f"{name}, line {count}"
        kinds.add(marker)
        try:
            words = shlex.split(re.sub(r"\s#.*", "", line[len(marker) :]))
        except ValueError as error:
            problems.append(f"{where}: {error}.")
            continue
        options, rest = parse(words, where, problems)
        if rest:
            problems.append(f"{where}: {rest[0]!r} is not an option.")
        given += options
    return given, kinds == {"#PBS"}


def translate(words: Sequence[str], read: Callable[[str], str]) -> tuple[Job, list[str]]:
    """Return the job that a command line asks for, and everything that is wrong with it.

    ``read`` returns the text of a script; an empty name stands for standard input. What stands on the command line
    comes last and wins.
    """
    problems: list[str] = []
    job = Job()
    given, rest = parse(words, "command line", problems)
    if problems:
        rest = []  # a value of an option that isn't known may look like a script
    binary = [item.value for item in given if item.name == "-b"][-1:] in (["y"], ["yes"])
    path = "" if not rest or rest[0] == "-" else rest.pop(0)
    rest = rest[1:] if rest[:1] == ["-"] else rest
    in_script: list[Given] = []
    if binary:
        if not path and not problems:
            problems.append("command line: -b y needs a command.")
        job.arguments = [path, *rest]
    elif not problems:
        try:
            job.script = read(path)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path}: {getattr(error, 'strerror', None) or 'it is not a text'}; a program needs -b y.")
        prefix = ([item.value for item in given if item.name == "-C"] or ["#$"])[-1]
        in_script, job.pbs = directives(job.script, path or "standard input", prefix, problems)
        job.arguments = rest
    for name, value, where in [*in_script, *given]:
        try:
            OPTIONS[name].apply(job, value)
        except Unusable as error:
            text = str(error)
            problems.append(f"{where}: {name} {value}: {text if text.endswith(('.', '?')) else text + '.'}")
    job.name = job.name or (Path(path).name if path else "STDIN")
    if "/" in job.name:
        problems.append(f"-N {job.name}: the name of a job has no '/'.")
    if job.array_limit and not job.array:
        problems.append(f"-tc {job.array_limit} limits an array of tasks: give its range with -t.")
    if "--nodes" in job.options and "--ntasks-per-node" in job.options and job.parallel_environment:
        problems.append("-pe and -l nodes= (or select=) both say how many cores: leave one of them out.")
    return job, problems


# --- submission ------------------------------------------------------------------------------------------------------


def output_path(text: str, kind: str, job: Job, is_directory: Callable[[str], bool]) -> str:
    """Return where stdout (``o``) or stderr (``e``) of the job goes: by default NAME.oNUMBER, as it always was."""
    name = f"%x.{kind}%A.%a" if job.array else f"%x.{kind}%j"
    if not text:
        return name
    path = file_pattern(text, bool(job.array))
    return f"{path.rstrip('/')}/{name}" if path.endswith("/") or is_directory(path) else path


def sbatch_argv(
    job: Job, dependencies: Sequence[str] = (), is_directory: Callable[[str], bool] = os.path.isdir
) -> list[str]:
    """Return the command that submits ``job``, whose script is its standard input."""
    options = {"--job-name": job.name, **job.options}
    options["--output"] = output_path(job.output, "o", job, is_directory)
    if not job.join:
        options["--error"] = output_path(job.error, "e", job, is_directory)
    if job.array:
        options["--array"] = job.array + (f"%{job.array_limit}" if job.array_limit else "")
    if dependencies:
        options["--dependency"] = ",".join(dependencies)
    if job.wait:
        options["--wait"] = ""
    flat = [f"{name}={value}" if value else name for name, value in options.items()]
    # Our translation counts, not sbatch's own idea of #PBS lines.
    return ["sbatch", "--parsable", "--ignore-pbs", *flat]


def script_text(job: Job) -> str:
    """Return the script for sbatch: two lines of our own, and the user's below them, untouched."""
    passed_on = [line for line in job.script.splitlines() if line.startswith("#SBATCH")]
    run = [PROGRAM, "--in-job", job.parallel_environment or "NONE", "$0"]
    if job.binary:
        run += ["--", *job.arguments]
        command = shlex.join(run).replace("'$0'", '"$0"')
        return "\n".join(["#!/bin/sh", f"exec {command}", ""])
    run += [*interpreter(job), "--", *job.arguments]
    command = shlex.join(run).replace("'$0'", '"$0"', 1)
    return "\n".join(["#!/bin/sh", *passed_on, f"exec {command}", SUBMITTED]) + job.script


def interpreter(job: Job) -> list[str]:
    """Return what runs the script: -S, else its first line, else bash."""
    if job.shell:
        return shlex.split(job.shell.partition(",")[0])
    first = job.script.split("\n", 1)[0]
    return shlex.split(first[2:]) if first.startswith("#!") else ["/bin/bash"]


def output_of(argv: Sequence[str]) -> str:
    """Return what a command prints; nothing if it fails."""
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


def dependencies(wait_for: Sequence[tuple[str, str]], run: Callable[[Sequence[str]], str]) -> list[str]:
    """Return sbatch's dependencies. A job that is unknown is over, which is what ``afterany`` waits for."""
    if not wait_for:
        return []
    numbers = sorted({ref.partition(".")[0] for _kind, ref in wait_for if ref[:1].isdigit()}, key=int)
    known = set(run(["squeue", "--noheader", "--states=all", f"--jobs={','.join(numbers)}", "--format=%F"]).split())
    names: list[list[str]] = []
    if any(not ref[:1].isdigit() for _kind, ref in wait_for):
        names = [line.split(" ", 1) for line in run(["squeue", "--noheader", "--me", "--format=%F %j"]).splitlines()]
    found: dict[str, None] = {}
    for kind, reference in wait_for:
        if reference[:1].isdigit():
            short = reference.partition(".")[0]
            if short in known or kind != "afterany":
                found[f"{kind}:{short}"] = None
        else:
            for job_id, name in names:
                if fnmatch.fnmatchcase(name, reference):
                    found[f"{kind}:{job_id}"] = None
    return list(found)


def announcement(job: Job, job_id: str) -> str:
    """Return what is said of a new job. PBS users' scripts read a bare number, Grid Engine's a sentence."""
    tasks = ""
    if job.array:
        first, _dash, rest = job.array.partition("-")
        tasks = f".{first}-{rest or first}" + ("" if ":" in rest else ":1") if "," not in job.array else f".{job.array}"
    if job.terse:
        return job_id + tasks
    if job.pbs:
        return job_id
    kind = "job-array" if job.array else "job"
    return f'Your {kind} {job_id}{tasks} ("{job.name}") has been submitted'


def submit(words: Sequence[str]) -> int:
    """Submit a job and return the exit code."""
    if any(word in ("-help", "--help") for word in words[:1]):
        sys.stdout.write(f"usage: qsub [options] [script [arguments]]\noptions: {' '.join(OPTIONS)}\n{SLURMS_OWN}\n")
        return 0
    job, problems = translate(words, lambda path: Path(path).read_text("utf-8") if path else sys.stdin.read())
    if problems:
        sys.stderr.write("".join(f"qsub: {problem}\n" for problem in problems))
        return 2
    origin = {"WORKDIR": job.options.get("--chdir") or str(Path.cwd()), "HOST": socket.gethostname()}
    origin.update({name: os.environ.get(name, "") for name in ("HOME", "LOGNAME", "PATH", "SHELL", "MAIL")})
    environment = {**os.environ, **job.environment}
    environment.update({f"{system}_O_{name}": text for system in ("SGE", "PBS") for name, text in origin.items()})
    argv = sbatch_argv(job, dependencies(job.wait_for, output_of))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if process.stdin and process.stdout:
            process.stdin.write(script_text(job))
            process.stdin.close()
            # With --wait, the number comes at once and the end much later.
            for line in process.stdout:
                sys.stdout.write(announcement(job, line.strip().partition(";")[0]) + "\n")
                sys.stdout.flush()
        return process.wait()


# --- inside of the job -----------------------------------------------------------------------------------------------


def tasks_per_node(text: str) -> list[int]:
    """Expand Slurm's ``2(x3),1``."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found:
            counts += [int(found[1])] * int(found[2] or 1)
    return counts


def job_environment(
    slurm: Mapping[str, str], hosts: Sequence[str], environment_name: str
) -> tuple[dict[str, str], str]:
    """Return the variables that Grid Engine and PBS set, from Slurm's, and the lines of the host file of the first.

    The second host file, of PBS, names each host as often as it has slots.
    """
    threads = int(slurm.get("SLURM_CPUS_PER_TASK", "1"))
    counts = tasks_per_node(slurm.get("SLURM_TASKS_PER_NODE", "1"))
    slots = [count * threads for count in [*counts, *[1] * len(hosts)][: len(hosts)]]
    queue = slurm.get("SLURM_JOB_PARTITION", "")
    array = slurm.get("SLURM_ARRAY_JOB_ID", "")
    number_of_job = array or slurm.get("SLURM_JOB_ID", "")
    task = slurm.get("SLURM_ARRAY_TASK_ID", "")
    name = slurm.get("SLURM_JOB_NAME", "")
    environment = {
        "ENVIRONMENT": "BATCH",
        "JOB_ID": number_of_job,
        "JOB_NAME": name,
        "NHOSTS": str(len(hosts)),
        "NQUEUES": "1",
        "NSLOTS": str(sum(slots)),
        "PE": environment_name,
        "QUEUE": queue,
        "REQUEST": name,
        "RESTARTED": "1" if slurm.get("SLURM_RESTART_COUNT", "0") != "0" else "0",
        "SGE_TASK_ID": task or "undefined",
        "SGE_TASK_FIRST": slurm.get("SLURM_ARRAY_TASK_MIN", "undefined"),
        "SGE_TASK_LAST": slurm.get("SLURM_ARRAY_TASK_MAX", "undefined"),
        "SGE_TASK_STEPSIZE": slurm.get("SLURM_ARRAY_TASK_STEP", "undefined"),
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBID": f"{number_of_job}[{task}]" if task else number_of_job,
        "PBS_JOBNAME": name,
        "PBS_NP": str(sum(slots)),
        "PBS_NUM_NODES": str(len(hosts)),
        "PBS_NUM_PPN": str(max(slots, default=1)),
        "PBS_QUEUE": queue,
    }
    if task:
        environment.update({"PBS_ARRAYID": task, "PBS_ARRAY_INDEX": task})
    lines = "".join(f"{host} {count} {queue}@{host} UNDEFINED\n" for host, count in zip(hosts, slots))
    return environment, lines


def memory_file(name: str, text: str) -> str:
    """Return the path of a file that lives as long as this process, whatever ends it, so nobody has to remove it."""
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def run_in_job(words: Sequence[str]) -> int:
    """Become the job's script: ``PE FILE INTERPRETER... -- ARGUMENTS...``; without an interpreter, the command."""
    environment_name, spooled, *rest = words
    split = rest.index("--")
    command, arguments = rest[:split], rest[split + 1 :]
    hosts = output_of(["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]).split()
    environment, lines = job_environment(os.environ, hosts, environment_name)
    per_slot = "".join(f"{line.split()[0]}\n" * int(line.split()[1]) for line in lines.splitlines())
    environment["PE_HOSTFILE"] = memory_file("pe_hostfile", lines)
    environment["PBS_NODEFILE"] = memory_file("pbs_nodefile", per_slot)
    if command:
        own = Path(spooled).read_text("utf-8").partition(SUBMITTED)[2]
        command = [*command, memory_file("job_script", own)]
        environment["JOB_SCRIPT"] = command[-1]
    argv = [*command, *arguments]
    try:
        os.execvpe(argv[0], argv, {**os.environ, **environment})
    except OSError as error:
        sys.stderr.write(f"qsub: {argv[0]} can't be run: {error.strerror}.\n")
    return 127


def main(words: Sequence[str]) -> int:
    """Run the command."""
    return run_in_job(words[1:]) if words[:1] == ["--in-job"] else submit(words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
