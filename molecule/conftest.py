# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests work with: playbooks run as a user runs them, and logins as root and as users."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parent.parent
PICTURE = r"""
find /etc /usr /opt /root /home /srv /boot /var -xdev -printf '%M %u:%g %p -> %l\n'
find /etc /usr /opt /root /home /srv /boot /var/lib /var/spool -xdev -type f -print0 | xargs -0 sha256sum
dpkg-query -W -f '${Package} ${Version} ${Status}\n'
getent passwd; getent group
systemctl list-unit-files --no-legend --no-pager | awk '{print "unit", $1, $2}'
systemctl list-units --all --no-legend --no-pager --plain --state=running,failed | awk '{print "runs", $1, $4}'
systemctl list-timers --all --no-legend --no-pager | awk '{print "timer", $(NF-1)}'
ip -o link | sed 's/^[0-9]*: //'; ip -o address | sed 's/^[0-9]*: //; s/ valid_lft.*//'; ip route; ip -6 route
(nft --stateless list ruleset || iptables-save) 2>/dev/null | grep -v '^#'
sysctl -a 2>/dev/null | grep -E '^(fs|kernel|net|vm)[.]'
hostname; cat /proc/self/mounts; ls /proc/sys/fs/nfs* 2>/dev/null
"""
"""What there is to see of a node: files, packages, accounts, units, timers, network, firewall rules, mounts."""

UNSTEADY = (
    "/var/lib/apt/",  # package lists are fetched
    "/var/cache/",  # caches of packages and of man, ldconfig and debconf
    "/var/log/",  # logs
    "/var/lib/dpkg/",  # the package data base notes that a package was there
    "/var/backups/",  # dpkg keeps copies of its data base
    "/var/lib/systemd/",  # stamps of timers, and what deb-systemd-helper remembers
    "/var/lib/ucf/",  # the registry of configuration files is rewritten
    "/var/tmp/systemd-private",  # of services that were running
    "/root/.ansible",  # Ansible's own directory on a node
    "/etc/.pwd.lock",  # useradd's lock file
    "/etc/ld.so.cache",  # rebuilt by packages that brought libraries
    "/usr/share/info/dir",  # rebuilt by packages
    "/etc/passwd-",  # useradd keeps the file as it was before its last change; so for the next five
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "session-",  # the scopes of our own logins; so for the next two
    "user@",
    "user-runtime-dir@",
    "/var/lib/chrony/",  # chronyd notes its clock's drift; only seen where the image has it
    "_count = ",  # counters of the kernel, which sysctl lists among the settings; so for the next ten
    "fs.aio-nr",
    "fs.dentry-state",
    "fs.file-nr",
    "fs.inode-",
    "fs.quota.",
    "kernel.ns_last_pid",
    "kernel.pty.nr",
    "kernel.random.",
    "kernel.seccomp.actions_logged",
    "vm.stat_refresh",
)
"""What may differ in two pictures of the same state, each with its reason."""

PLAY_SECONDS = 1800
"""A run that takes longer hangs. Bare nodes that get everything take ten minutes, more beside other tests."""

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.M)


@dataclass(frozen=True)
class Run:
    """One finished run of ansible-playbook."""

    code: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """Number of changed tasks by host."""
        return {row[0]: int(row[2]) for row in RECAP.findall(self.output)}

    @property
    def warnings(self) -> list[str]:
        """Lines that warn of something."""
        return [line for line in self.output.splitlines() if "[WARNING]" in line or "[DEPRECATION" in line]

    def succeeded(self) -> Run:
        """Return this run, which must have ended well and warned of nothing."""
        assert self.code == 0, self.output
        assert not self.warnings, self.output
        return self


@dataclass(frozen=True)
class Site:
    """A directory with an inventory, and the cluster that it describes."""

    path: Path

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """Return the command that runs one of the collection's playbooks."""
        book = playbook if playbook.startswith("turnkey.hpc.") else str(ROOT / "playbooks" / f"{playbook}.yml")
        return ["ansible-playbook", "-i", str(self.path), book, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment of a user in the checkout, without what Molecule sets."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {**clean, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def play(self, playbook: str, *arguments: str, count_into: Path | None = None) -> Run:
        """Run a playbook to its end. ``count_into`` is a file that receives how many modules ran on each host."""
        environment = self.environment()
        if count_into:
            environment["ANSIBLE_CALLBACK_PLUGINS"] = str(ROOT / "benchmarks/callback_plugins")
            environment["ANSIBLE_CALLBACKS_ENABLED"] = "module_runs"
            environment["MODULE_RUNS_FILE"] = str(count_into)
        done = subprocess.run(
            self.command(playbook, *arguments),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    @property
    def ssh_config(self) -> Path:
        """The SSH configuration that provisioning wrote."""
        return self.path / ".secrets/access/ssh_config"

    @property
    def authority(self) -> Path:
        """The directory of the cluster's certificate authority."""
        return self.path / ".secrets/ssh_ca"

    def picture(self, node: str) -> set[str]:
        """Return what there is to see of ``node``, a line a thing."""
        lines = self.root(node).run(PICTURE).stdout.splitlines()
        return {line for line in lines if not any(part in line for part in UNSTEADY)}

    def root(self, node: str) -> Host:
        """Return ``node`` as its administrator sees it."""
        return testinfra.get_host(f"ssh://root@{node}", ssh_config=str(self.ssh_config))

    def login(self, user: str, node: str, key: Path) -> subprocess.CompletedProcess[str]:
        """Try to log in from outside with ``key`` and the certificate beside it; print the names of user and node."""
        argv = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
        argv += ["-o", f"IdentityFile={key}", "-o", "IdentityAgent=none", f"{user}@{node}", "whoami; hostname"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def make_site(request: pytest.FixtureRequest) -> Callable[[str], Site]:
    """A maker of the site in molecule/shared/NAME. The journal of its head is printed if the test fails."""

    def make(name: str) -> Site:
        request.node.site = Site(ROOT / "molecule/shared" / name)
        return request.node.site

    return make


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    """The cluster of four nodes from the golden image that most scenarios share."""
    return make_site("baked")


@pytest.fixture
def key(tmp_path: Path) -> Callable[[str], Path]:
    """A maker of fresh SSH key pairs that nobody knows."""

    def make(name: str) -> Path:
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
        return path

    return make


@dataclass(frozen=True)
class Jobs:
    """Jobs of alice on the cluster ``name``, watched from the consoles of its containers, which outlive its network."""

    name: str

    def at(self, node: str) -> Host:
        """Return ``node`` as root on its console sees it."""
        return testinfra.get_host(f"docker://{self.name}-{node}")

    def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until ``holds`` does."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                log = self.at("head").run("journalctl --no-pager -n 40; sinfo; squeue; sacct -X").stdout
                pytest.fail(f"{what}: not within {seconds} s\n{log}")
            time.sleep(0.5)  # poll interval

    def submit(self, count: int = 6, seconds: int = 12, host: str = "head", held: bool = False) -> str:
        """Submit jobs that note begin and end; return once they fill the cluster and Slurm has that on disk.

        slurmctld writes its state down within some 5 seconds. docs/slurm.md says what a crash before that means. So a
        test of a crash makes it while nothing begins or ends: jobs that are ``held`` run until ``release``.
        """
        argv = ["sbatch", "--parsable", f"--array=1-{count}", "--time=5", "--open-mode=append"]
        # poll interval: 0.5 s
        released = "timeout 240 sh -c 'until [ -e /shared/released.'$SLURM_ARRAY_JOB_ID' ]; do sleep 0.5; done'"
        work = released if held else f"sleep {seconds}"
        argv += ["--output=/shared/%A.%a", f"--wrap=echo begin; {work}; echo end"]
        number = self.at(host).check_output("su - alice -c %s", shlex.join(argv))
        self.until("some run, and no core is left for the rest", lambda: self._fills(number, host), 30)
        place = self.at(host).check_output("scontrol show config | sed -n 's/^StateSaveLocation *= //p'")
        now = int(self.at(host).check_output("date +%s"))
        # It is not there before the first time, and for a moment whenever slurmctld puts a new one in its place.
        saved = f"stat --format=%Y {place}/job_state 2>/dev/null || echo 0"
        self.until("slurmctld has saved its state", lambda: int(self.at(host).check_output(saved)) > now, 30)
        return f"{number} {count}"

    def release(self, batch: str, host: str = "head") -> None:
        """Let jobs that are held come to their end."""
        self.at(host).check_output("touch /shared/released.%s", batch.split()[0])

    def _fills(self, number: str, host: str) -> bool:
        states = set(self.at(host).run("squeue --noheader --jobs=%s --format=%%T", number).stdout.split())
        allocated_and_idle = self.at(host).run("sinfo --noheader --format=%C").stdout.split("/")[:2]
        return states == {"RUNNING", "PENDING"} and allocated_and_idle[1:] == ["0"]

    def kill(self, node: str, *units: str) -> None:
        """Kill daemons with SIGKILL, all at once, and wait until systemd has started them again."""
        before = {unit: self._main_pid(node, unit) for unit in units}
        self.at(node).check_output(f"systemctl kill --signal=KILL --kill-who=main {' '.join(units)}")
        for unit, pid in before.items():
            self.until(
                f"{unit} runs again", lambda unit=unit, pid=pid: self._main_pid(node, unit) not in ("0", pid), 60
            )

    def _main_pid(self, node: str, unit: str) -> str:
        return self.at(node).check_output("systemctl show --property=MainPID --value %s", unit)

    def power_off(self, node: str) -> None:
        """Take the power from a node."""
        subprocess.run(["docker", "kill", f"{self.name}-{node}"], check=True, capture_output=True)

    def power_on(self, node: str) -> None:
        """Give it back, and wait until the node is up."""
        subprocess.run(["docker", "start", f"{self.name}-{node}"], check=True, capture_output=True)
        up = ("running", "degraded")
        self.until(f"{node} is up", lambda: self.at(node).run("systemctl is-system-running").stdout.strip() in up, 120)

    def state_of(self, node: str, host: str = "head") -> str:
        """Return Slurm's state of a node."""
        return self.at(host).run("sinfo --noheader --nodes=%s --format=%%T", node).stdout.strip()

    def ages_on(self, node: str, host: str = "head") -> list[int]:
        """Return for how many seconds the jobs on a node have run, for those that run less than an hour."""
        times = self.at(host).check_output("squeue --noheader --nodelist=%s --states=RUNNING --format=%%M", node)
        return [int(minutes) * 60 + int(seconds) for minutes, seconds in (age.split(":") for age in times.split())]

    def wait_for_health(self, host: str = "head", seconds: float = 120) -> None:
        """Wait until every node takes jobs and the accounting answers."""
        healthy = {"idle", "mixed", "allocated", "completing"}

        def holds() -> bool:
            nodes = self.at(host).run("sinfo --noheader --format=%T")
            return (
                nodes.rc == 0
                and set(nodes.stdout.split()) <= healthy
                and self.at(host).run("sacctmgr -n show qos").rc == 0
            )

        self.until("the cluster is healthy", holds, seconds)

    def _outputs(self, batch: str, host: str) -> list[str]:
        number, count = batch.split()
        return [self.at(host).run("cat /shared/%s.%s", number, str(task + 1)).stdout for task in range(int(count))]

    def ended(self, batch: str, host: str = "head") -> bool:
        """Return whether what has begun has ended."""
        return all(text.count("begin") == text.count("end") for text in self._outputs(batch, host))

    def assert_each_completed(self, batch: str, host: str = "head", seconds: float = 180) -> None:
        """Wait until the accounting has every job of ``batch`` as completed; each has come to its end once."""
        number, count = batch.split()
        command = f"sacct --noheader --parsable2 --allocations --jobs={number} --format=State"
        wanted = ["COMPLETED"] * int(count)
        self.until("all jobs completed", lambda: self.at(host).run(command).stdout.split() == wanted, seconds)
        assert [text.count("end") for text in self._outputs(batch, host)] == [1] * int(count)

    def assert_each_ran_once(self, batch: str, host: str = "head") -> None:
        """The same, and no job began a second time."""
        self.assert_each_completed(batch, host)
        assert set(self._outputs(batch, host)) == {"begin\nend\n"}


@pytest.fixture
def write_image() -> Callable[[Path], None]:
    """A writer of images as `docker save` writes them: one layer with one file, and no program."""

    def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    def write(path: Path) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            add(archive, "hello", b"hello\n")
        layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]}
        config = {"architecture": "amd64", "os": "linux", "rootfs": layers}
        tags = ["registry.example.org/turnkey/mini:1"]
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as archive:
            add(archive, "layer.tar", layer.getvalue())
            add(archive, "config.json", json.dumps(config).encode())
            manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]
            add(archive, "manifest.json", json.dumps(manifest).encode())

    return write


@pytest.fixture
def make_jobs() -> Callable[[str], Jobs]:
    """A maker of jobs on a cluster in Docker."""
    return Jobs


@dataclass(frozen=True)
class Quarantine:
    """Containers that reach their own network and nothing else. What they try is refused and noted.

    A network that Docker made with --internal would not do: without a route an attempt fails before there is a packet
    that could be counted, and Docker's name server asks its host's all the same.
    """

    cluster: str
    nodes: tuple[str, ...]

    def _nft(self, node: str, *arguments: str, rules: str | None = None) -> str:
        """Run nft in the network of a container."""
        inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", f"{self.cluster}-{node}"]
        pid = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
        argv = ["nsenter", "--target", pid, "--net", "nft", *arguments]
        return subprocess.run(argv, input=rules, check=True, capture_output=True, text=True).stdout

    def _elements(self, node: str, name: str) -> Iterator[list[Any]]:
        """Yield the elements of a set, each a list of its parts."""
        listed = json.loads(self._nft(node, "--json", "list", "set", "inet", "quarantine", name))
        for entry in listed["nftables"]:
            for element in entry.get("set", {}).get("elem", []):
                yield element["concat"] if "concat" in element else element["elem"]["val"]["concat"]

    def close(self, network: str) -> None:
        """Refuse and note from now on what goes elsewhere than to ``network``."""
        rules = f"""
            table inet quarantine {{
                set attempts {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }}
                set attempts6 {{ type ipv6_addr . inet_proto; flags dynamic; size 65535; }}
                set questions {{ typeof meta skuid . @th,160,64; flags dynamic; size 65535; }}
                chain output {{
                    type filter hook output priority 10; policy accept;
                    oif lo accept
                    ip daddr {{ {network}, 224.0.0.0/4 }} accept
                    ip6 daddr {{ fe80::/10, ff00::/8 }} accept
                    meta l4proto {{ tcp, udp }} add @attempts {{ ip daddr . meta l4proto . th dport }}
                    meta l4proto != {{ tcp, udp }} add @attempts {{ ip daddr . meta l4proto . 0 }}
                    add @attempts6 {{ ip6 daddr . meta l4proto }}
                    udp dport 53 add @questions {{ meta skuid . @th,160,64 }}
                    reject with icmpx type admin-prohibited
                }}
            }}
        """
        for node in self.nodes:
            self._nft(node, "-f", "-", rules=f"table inet quarantine\ndelete table inet quarantine\n{rules}")
            # Names are asked for where a packet has to leave for it. The address is nobody's.
            script = "echo 'nameserver 192.0.2.53' >/etc/resolv.conf"
            subprocess.run(["docker", "exec", f"{self.cluster}-{node}", "sh", "-c", script], check=True)

    def attempts(self) -> set[str]:
        """Return what was tried, as "NODE: ADDRESS PROTOCOL PORT", and "NODE: user UID asks for NAME", cut short."""
        found = set()
        for node in self.nodes:
            for uid, name in self._elements(node, "questions"):
                # Eight bytes of the name, whose parts begin with their lengths; a shorter one is followed by its type.
                text = bytes.fromhex(f"{int(str(name), 0):016x}")[1:]
                shown = "".join(chr(byte) if byte > 32 else "." for byte in text)
                found.add(f"{node}: user {uid} asks for {shown}")
            for name in ("attempts", "attempts6"):
                found |= {f"{node}: {' '.join(map(str, parts))}" for parts in self._elements(node, name)}
        return found


@pytest.fixture
def quarantine() -> Callable[[str, tuple[str, ...]], Quarantine]:
    """A maker of containers without a way out."""
    return Quarantine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the last lines of the head's journal to the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    site = getattr(item, "site", None)
    if report.failed and site and site.ssh_config.exists():
        report.sections.append(("journal of head", site.root("head").run("journalctl --no-pager -n 60").stdout))
