# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``qstat``, ``qdel`` and ``qhost`` for Slurm: the tables that Grid Engine users know, from what Slurm's tools say.

Role slurm installs this file, which imports nothing of the collection and works with Python 3.9; each of the commands
calls it with its own name. Options of PBS go to the command of that name in Debian's slurm-wlm-torque.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

__all__ = ["Entry", "job_table", "main", "parse_jobs", "qdel", "qhost", "qstat"]

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

# The name is last: it is the only one in which anything may stand.
JOBS = "%F|%K|%T|%u|%P|%C|%S|%V|%N|%p|%r|%a|%l|%m|%Z|%j"
TORQUE = {"-B", "-G", "-Q", "-R", "-a", "-i", "-n"}
STATES = {"RUNNING": "r", "COMPLETING": "dr", "CONFIGURING": "t", "SUSPENDED": "s", "STOPPED": "T", "RESIZING": "r"}
SELECTED = {"r": ("r", "dr", "t"), "p": ("qw", "hqw"), "h": ("hqw",), "s": ("s", "T")}
SLURM_WAY = {
    "-ext": "squeue --Format=...",
    "-pri": "sprio",
    "-t": "squeue --array, or 'squeue --steps'",
    "-urg": "sprio",
    "-xml": "squeue --json",
}


class Refused(Exception):
    """The command line can't be carried out. The text says what would do."""


class Entry(NamedTuple):
    """A line of squeue."""

    number: str
    task: str
    state: str
    user: str
    queue: str
    slots: str
    start: str
    submit: str
    nodes: str
    priority: str
    reason: str
    account: str
    limit: str
    memory: str
    directory: str
    name: str

    @property
    def letters(self) -> str:
        """Grid Engine's state."""
        if self.state == "PENDING":
            held = self.reason.startswith("JobHeld") or self.reason.startswith("Dependency")
            return "hqw" if held else "qw"
        return STATES.get(self.state, self.state.lower())


def parse_jobs(text: str) -> list[Entry]:
    """Read the output of ``squeue --format=JOBS``; what runs comes first."""
    rows = (line.split("|", len(Entry._fields) - 1) for line in text.splitlines())
    entries = [Entry(*row) for row in rows if len(row) == len(Entry._fields)]
    return sorted(entries, key=lambda entry: (entry.state == "PENDING", int(entry.number)))


def moment(text: str) -> str:
    """Return Slurm's ``2026-11-22T09:12:01`` as Grid Engine writes it."""
    return re.sub(r"^(\d+)-(\d+)-(\d+)T(.*)$", r"\2/\3/\1 \4", text)


def job_line(entry: Entry) -> str:
    """Return the line of one job, or of the waiting tasks of one."""
    running = entry.state != "PENDING"
    first = re.sub(r"\[(\d+).*", r"\1", entry.nodes).partition(",")[0]
    place = f"{entry.queue}@{first}" if running and first else ""
    task = "" if entry.task in ("N/A", "") else entry.task
    return (
        f"{entry.number:>7} {float(entry.priority or 0):.5f} {entry.name[:10]:<10} {entry.user[:12]:<12} "
        f"{entry.letters:<5} {moment(entry.start if running else entry.submit):<19} {place[:30]:<30} "
        f"{entry.slots:>5} {task}"
    ).rstrip()


def job_table(entries: Iterable[Entry]) -> str:
    """Return Grid Engine's table of jobs, nothing if there is none."""
    lines = [job_line(entry) for entry in entries]
    if not lines:
        return ""
    title = (
        f"{'job-ID':>7} {'prior':<7} {'name':<10} {'user':<12} {'state':<5} {'submit/start at':<19} "
        f"{'queue':<30} {'slots':>5} ja-task-ID"
    )
    return "\n".join([title, "-" * len(title), *lines, ""])


def job_details(entries: Sequence[Entry]) -> str:
    """Return what ``qstat -j`` shows of one job."""
    entry = entries[0]
    rows = {
        "job_number": entry.number,
        "job_name": entry.name,
        "owner": entry.user,
        "account": entry.account.replace("(null)", ""),
        "state": ", ".join(dict.fromkeys(item.letters for item in entries)),
        "submission_time": moment(entry.submit),
        "start_time": "" if entry.state == "PENDING" else moment(entry.start),
        "hard_queue_list": entry.queue,
        "slots": entry.slots,
        "hard resource_list": f"h_rt={entry.limit},mem={entry.memory}",
        "sge_o_workdir": entry.directory,
        "exec_host_list": entry.nodes,
        "job-array tasks": "" if entry.task == "N/A" else ",".join(item.task for item in entries),
        "scheduling info": next((item.reason for item in entries if item.state == "PENDING"), ""),
    }
    return "=" * 62 + "\n" + "".join(f"{name + ':':<28}{value}\n" for name, value in rows.items() if value)


def queue_instances(nodes: str, entries: Sequence[Entry]) -> str:
    """Return what ``qstat -f`` shows: each node in each partition, its waiting jobs below them all."""
    title = f"{'queuename':<30} {'qtype':<5} {'resv/used/tot.':<14} {'load_avg':<8} {'arch':<13} states"
    lines = [title]
    for row in nodes.splitlines():
        node, queue, cores, load, state = row.split("|")
        used, _idle, _other, total = cores.split("/")
        letters = "" if re.match(r"(idle|alloc|mix|comp)", state) and state[-1] not in "*$" else state
        lines += ["-" * len(title)]
        name, slots = f"{queue.rstrip('*')}@{node}", f"0/{used}/{total}"
        lines += [f"{name:<30} {'BP':<5} {slots:<14} {load:<8} {'lx-amd64':<13} {letters}".rstrip()]
        lines += [job_line(entry) for entry in entries if entry.nodes == node and entry.queue == queue.rstrip("*")]
    spread = [entry for entry in entries if entry.state != "PENDING" and re.search(r"[\[,]", entry.nodes)]
    waiting = [entry for entry in entries if entry.state == "PENDING"]
    for name, group in (("JOBS ON SEVERAL NODES", spread), ("PENDING JOBS", waiting)):
        if group:
            lines += ["", f" {name} ".center(len(title), "#"), *[job_line(entry) for entry in group]]
    return "\n".join([*lines, ""])


def queue_summary(partitions: str) -> str:
    """Return what ``qstat -g c`` shows."""
    title = f"{'CLUSTER QUEUE':<30} {'USED':>6} {'RES':>6} {'AVAIL':>6} {'TOTAL':>6} {'cdsuE':>6}"
    lines = [title, "-" * len(title)]
    for row in partitions.splitlines():
        name, cores = row.split("|")
        used, idle, other, total = cores.split("/")
        lines += [f"{name:<30} {used:>6} {0:>6} {idle:>6} {total:>6} {other:>6}"]
    return "\n".join([*lines, ""])


def checked(run: Run, argv: Sequence[str]) -> str:
    """Return the output of one of Slurm's tools, or give up with its own words."""
    code, out, err = run(argv)
    if code:
        raise Refused(err.strip() or f"{argv[0]} failed with code {code}")
    return out


def options_of(words: Sequence[str], known: dict[str, bool], command: str) -> tuple[dict[str, str], list[str]]:
    """Return the options of ``words`` (with their values where ``known`` says that they have one) and the rest."""
    found: dict[str, str] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            rest.append(word)
        elif word in SLURM_WAY and command == "qstat":
            raise Refused(f"option {word} has no equal. The Slurm way: {SLURM_WAY[word]}.")
        elif word not in known:
            near = difflib.get_close_matches(word, known, 1)
            native = {"qstat": "squeue", "qdel": "scancel", "qhost": "sinfo"}[command]
            hint = f", did you mean {near[0]}?" if near else "."
            raise Refused(f"option {word} is not known{hint} See '{native} --help' for what Slurm has.")
        elif known[word]:
            if not queue:
                raise Refused(f"option {word} needs a value.")
            found[word] = queue.pop(0)
        else:
            found[word] = ""
    return found, rest


def selected(entries: Iterable[Entry], users: str, states: str, queue: str, numbers: Sequence[str]) -> list[Entry]:
    """Return the jobs that are asked for; ``users`` and ``queue`` may have patterns."""
    letters = {letter for state in states for letter in SELECTED.get(state, ())} if states else None
    return [
        entry
        for entry in entries
        if any(fnmatch.fnmatchcase(entry.user, user) for user in users.split(","))
        and (letters is None or entry.letters in letters)
        and (not queue or fnmatch.fnmatchcase(entry.queue, queue.partition("@")[0]))
        and (not numbers or entry.number in numbers)
    ]


def qstat(words: Sequence[str], run: Run, user: str) -> str:
    """Return the text of ``qstat``."""
    takes_value = {"-u": True, "-j": True, "-s": True, "-q": True, "-g": True, "-f": False, "-r": False}
    found, rest = options_of(words, takes_value, "qstat")
    if found.get("-g", "c") != "c":
        raise Refused(f"-g {found['-g']} is not known, only -g c is. The Slurm way: squeue --array.")
    if "-g" in found:
        return queue_summary(checked(run, ["sinfo", "--noheader", "--format=%R|%C"]))
    if set(found.get("-s", "r")) - {"r", "p", "h", "s", "a", "z"}:
        raise Refused(f"-s {found['-s']} is not known: r (running), p (waiting), h (held), s (suspended), a (all).")
    if "z" in found.get("-s", ""):
        raise Refused("-s z: finished jobs are in the accounting. The Slurm way: sacct.")
    entries = parse_jobs(checked(run, ["squeue", "--noheader", "--all", f"--format={JOBS}"]))
    if "-j" in found:
        wanted = found["-j"].partition(".")[0]
        chosen = [entry for entry in entries if wanted == entry.number or fnmatch.fnmatchcase(entry.name, wanted)]
        if not chosen:
            raise Refused(f"job {found['-j']} is neither waiting nor running. See 'sacct --jobs={found['-j']}'.")
        numbers = dict.fromkeys(entry.number for entry in chosen)
        return "".join(job_details([entry for entry in chosen if entry.number == number]) for number in numbers)
    everybody = "-f" in found or rest
    states = "" if "a" in found.get("-s", "a") else found["-s"]
    users = found.get("-u", "*" if everybody else user)
    chosen = selected(entries, users, states, found.get("-q", ""), [word.partition(".")[0] for word in rest])
    if "-f" in found:
        nodes = checked(run, ["sinfo", "--noheader", "--Node", "--format=%N|%P|%C|%O|%T"])
        return queue_instances(nodes, chosen)
    return job_table(chosen)


def qdel(words: Sequence[str], run: Run, user: str) -> tuple[str, bool]:
    """Delete jobs; return what to say, and whether every one was found."""
    found, rest = options_of(words, {"-f": False, "-u": True, "-t": True, "-W": True, "-p": False}, "qdel")
    references = [part for word in rest for part in word.split(",") if part]
    if "-u" not in found and not references:
        raise Refused("name the jobs: numbers, names, or -u USER.")
    entries = parse_jobs(checked(run, ["squeue", "--noheader", "--all", f"--format={JOBS}"]))
    said: list[str] = []
    targets: dict[str, None] = {}
    complete = True
    if "-u" in found:
        for entry in selected(entries, found["-u"], "", "", []):
            targets[entry.number] = None
    for reference in references:
        parts = re.fullmatch(
            r"(\d+)(?:\.([a-z][\w.-]*))?(?:\.(\d[\d:-]*)|\[([\d,:-]*)\])?(?:\.[a-z][\w.-]*)?", reference
        )
        if parts:
            number, _server, sge_task, pbs_task = parts.groups()
            numbers = [number] if any(entry.number == number for entry in entries) else []
            task = sge_task or pbs_task or found.get("-t", "")
        else:
            mine = [entry for entry in entries if entry.user == user]
            numbers = [entry.number for entry in mine if fnmatch.fnmatchcase(entry.name, reference)]
            task = found.get("-t", "")
        if not numbers:
            said.append(f'denied: job "{reference}" does not exist')
            complete = False
        targets.update({f"{number}_[{task}]" if task else number: None for number in numbers})
    for target in targets:
        code, _out, err = run(["scancel", *(["--signal=KILL"] if "-f" in found else []), target])
        if code or err.strip():
            said.append(f"job {target}: {err.strip()}")
            complete = False
        else:
            said.append(f"{user} has registered the job {target} for deletion")
    return "\n".join([*said, ""]) if said else "", complete


def size(megabytes: float) -> str:
    """Return an amount of memory as Grid Engine writes it."""
    return f"{megabytes:.1f}M" if megabytes < 1024 else f"{megabytes / 1024:.1f}G"


def qhost(words: Sequence[str], run: Run) -> str:
    """Return the text of ``qhost``."""
    found, rest = options_of(words, {"-h": True, "-q": False}, "qhost")
    if rest:
        raise Refused(f"{rest[0]!r} is not an option; -h HOST,HOST chooses hosts.")
    text = checked(run, ["scontrol", "--oneliner", "show", "node"])
    title = f"{'HOSTNAME':<23} {'ARCH':<10} NCPU NSOC NCOR NTHR  LOAD  MEMTOT  MEMUSE  STATE"
    lines = [title, "-" * len(title)]
    lines += [f"{'global':<23} {'-':<10} {'-':>4} {'-':>4} {'-':>4} {'-':>4} {'-':>5} {'-':>7} {'-':>7}  -"]
    for row in text.splitlines():
        node = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", row))
        if not node or ("-h" in found and node["NodeName"] not in found["-h"].split(",")):
            continue
        sockets = int(node.get("Sockets", 1)) * max(1, int(node.get("Boards", 1)))
        cores = sockets * int(node.get("CoresPerSocket", 1))
        total, free = float(node.get("RealMemory", 0)), node.get("FreeMem", "N/A")
        used = size(max(0.0, total - float(free))) if free.isdigit() else "-"
        load = node.get("CPULoad", "N/A")
        lines.append(
            f"{node['NodeName']:<23} {'lx-amd64' if node.get('Arch') == 'x86_64' else node.get('Arch', '-'):<10} "
            f"{node.get('CPUTot', '-'):>4} {sockets:>4} {cores:>4} {cores * int(node.get('ThreadsPerCore', 1)):>4} "
            f"{'-' if load == 'N/A' else load:>5} {size(total):>7} {used:>7}  {node.get('State', '-').lower()}"
        )
        if "-q" in found:
            slots = f"0/{node.get('CPUAlloc', '0')}/{node.get('CPUTot', '-')}"
            lines += [f"   {name:<20} BP    {slots}" for name in node.get("Partitions", "").split(",") if name]
    return "\n".join([*lines, ""])


def run_tool(argv: Sequence[str]) -> tuple[int, str, str]:
    """Run one of Slurm's tools."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def main(command: str, words: Sequence[str]) -> int:
    """Run ``command``."""
    user = os.environ.get("LOGNAME") or os.environ.get("USER") or str(os.getuid())
    torque = f"/usr/bin/{command}"
    pbs_full = command == "qstat" and "-f" in words and any(word[:1].isdigit() for word in words)
    if command == "qstat" and (pbs_full or TORQUE.intersection(words)) and Path(torque).exists():
        os.execv(torque, [torque, *words])
    try:
        if command == "qdel":
            text, complete = qdel(words, run_tool, user)
        else:
            text, complete = (qstat(words, run_tool, user) if command == "qstat" else qhost(words, run_tool)), True
    except Refused as error:
        sys.stderr.write(f"{command}: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
