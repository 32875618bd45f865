# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users push from outside, with git, ssh and a key of their own."""

import json
import os
import re
import select
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Ranks are on different hosts, data crosses between them, and the application may wait for its user.
HELLO = {
    "hello.c": r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int rank, size, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("C: rank %d of %d on %s, sum %d, %s\n", rank, size, name, sum, getenv("COLOUR") ? getenv("COLOUR") : "-");
    fflush(stdout);
    if (argc > 2 && argv[1][0] == 'w')
        while (access(argv[2], F_OK))
            usleep(100000); /* poll interval */
    if (argc > 1 && argv[1][0] == 'c' && rank == 1)
        *(volatile int *)0 = 1;
    if (argc > 1 && argv[1][0] == 'd') {
        /* Everybody waits for a message that nobody sends. */
        MPI_Recv(&sum, 1, MPI_INT, (rank + 1) % size, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
""",
    "hello.cpp": r"""
#include <mpi.h>
#include <iostream>
#include <string>
int main(int argc, char **argv)
{
    int rank, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    std::cout << "C++: rank " + std::to_string(rank) + " on " + name + "\n" << std::flush;
    MPI_Finalize();
}
""",
    "hello.f90": r"""
program hello
  use mpi
  integer :: rank, length, ierror
  character(len=MPI_MAX_PROCESSOR_NAME) :: name
  call MPI_Init(ierror)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierror)
  call MPI_Get_processor_name(name, length, ierror)
  print '(a,i0,a,a)', 'Fortran: rank ', rank, ' on ', name(1:length)
  call MPI_Finalize(ierror)
end program
""",
}
MAKEFILE = "CFLAGS = -O1\nall: bin/hello\nbin/hello: hello.c\n\tmkdir -p bin && mpicc $(CFLAGS) -o $@ $<\n"
RELEASE = "/shared/test-release"


class Tree:
    """A repository of a user on a computer of their own."""

    def __init__(self, site, user, key, path):
        """Make it."""
        self.user, self.path = user, path
        options = (
            f"-F {site.ssh_config} -o IdentityFile={key} -o IdentityAgent=none -o BatchMode=yes -o ControlPath=none"
        )
        self.environment = {**os.environ, "GIT_SSH_COMMAND": f"ssh {options}", "GIT_CONFIG_GLOBAL": "/dev/null"}
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments, check=True):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", "-C", str(self.path), *who, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def commit(self, **files):
        for name, text in files.items():
            path = self.path / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD").stdout.strip()

    def command(self, app, *options):
        return ["push", *options, f"{self.user}@head:apps/{app}", "HEAD:refs/heads/main"]

    def push(self, app, *options):
        """Push and return exit code and what was seen."""
        done = self.git(*self.command(app, *options), check=False)
        return done.returncode, "\n".join(line.rstrip() for line in done.stderr.splitlines())

    def pushing(self, app):
        """Begin a push and return the process."""
        argv = ["git", "-C", str(self.path), *self.command(app)]
        return subprocess.Popen(argv, env=self.environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def on_cluster(self, app):
        """Return the commit that the cluster has."""
        return self.git("ls-remote", f"{self.user}@head:apps/{app}", "refs/heads/main", check=False).stdout.partition(
            "\t"
        )[0]


def told(push, text, seconds=60):
    """Wait until a push has said ``text``; return all that it has said."""
    said, deadline = "", time.monotonic() + seconds
    while text not in said:
        assert time.monotonic() < deadline, said
        if select.select([push.stderr], [], [], 1)[0]:
            said += os.read(push.stderr.fileno(), 65536).decode()
    return said


@pytest.fixture
def person(site, key, tmp_path):
    """Return what makes a tree of a user, who can log in from outside."""
    head = site.root("head")
    files = []

    def make(user, name):
        if not (tmp_path / user).exists():
            public = Path(f"{key(user)}.pub").read_text()
            head.check_output(
                "install -d -m 700 -o %s -g %s /home/%s/.ssh && printf %%s %s >/home/%s/.ssh/authorized_keys",
                user, user, user, public, user,
            )  # fmt: skip
            files.append(f"/home/{user}/.ssh/authorized_keys")
        return Tree(site, user, tmp_path / user, tmp_path / name)

    yield make
    head.check_output("rm -rf %s /home/alice/apps /shared/mpi-alice /home/bob/apps /shared/mpi-bob", RELEASE)
    for path in files:
        head.check_output("rm %s", path)


@pytest.fixture
def apps(site):
    """Return what runs the command ``apps`` on the head node."""
    head = site.root("head")

    def run(user, *arguments):
        return head.run("su - %s -c %s", user, shlex.join(["apps", *arguments]))

    return run


@pytest.fixture
def compute(site):
    """The nodes that run jobs."""
    return re.findall(r"^(\w+)", site.root("head").file("/etc/openmpi/cluster-hosts").content_string, re.M)


def state(apps, app, number=None):
    return json.loads(apps("alice", "status", "--json", app, *([str(number)] if number else [])).stdout)


def until(what, holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.3)  # poll interval


def test_c_cpp_fortran_and_make_are_built_and_run_on_three_hosts(person, apps):
    manifest = "from: {}\nto: hello\nhosts: 3\n"
    old, env = manifest.format("hello.c"), "env:\n  COLOUR: green\n"
    make = "build: make\nto: bin/hello\nhosts: 3\nranks_per_host: 2\n"
    trees = {
        "in-c": {"hello__c": HELLO["hello.c"], "mpi__xml": old},
        "in-cpp": {"hello__cpp": HELLO["hello.cpp"], "mpi__yml": manifest.format("hello.cpp")},
        "in-fortran": {"hello__f90": HELLO["hello.f90"], "mpi__yml": manifest.format("hello.f90")},
        "by-make": {"hello__c": HELLO["hello.c"], "Makefile": MAKEFILE, "mpi__yml": make + env},
    }
    people = {name: person("alice", name) for name in trees}
    commits = {name: people[name].commit(**files) for name, files in trees.items()}
    with ThreadPoolExecutor() as pool:
        said = dict(zip(trees, pool.map(lambda name: people[name].push(name), trees)))
    for name, (code, text) in said.items():
        language = {"in-cpp": "C++", "in-fortran": "Fortran"}.get(name, "C")
        ranks = 6 if name == "by-make" else 3
        assert code == 0, text
        assert len(re.findall(rf"^remote: {re.escape(language)}: rank \d", text, re.M)) == ranks, text
        assert len(set(re.findall(r"rank \d.* on (\w+)", text))) == 3, text
        assert re.search(
            rf"^remote: {name} run 1: completed, [\d.]+ s, exit code 0, {ranks} ranks on 3 hosts", text, re.M
        )
    assert "mpifort -O2 -o hello hello.f90" in said["in-fortran"][1]
    assert "sum 15, green" in said["by-make"][1]
    # The record has what it takes to do it again.
    run = state(apps, "by-make")
    assert run["commit"] == commits["by-make"]
    assert run["manifest"]["ranks_per_host"] == 2
    assert "gcc" in run["versions"]["mpicc"]
    assert "Open MPI" in run["versions"]["mpirun"]
    assert sorted(rank for ranks in run["ranks"].values() for rank in ranks) == [0, 1, 2, 3, 4, 5]
    assert run["output"].count("\n") == 6
    assert "mpicc -O1" in run["build_log"]
    again = apps("alice", "run", "by-make", "-o", "ranks_per_host=1", "-o", "cpus_per_rank=2")
    assert again.rc == 0, again.stderr
    assert "3 ranks on 3 hosts" in again.stdout


def test_a_failed_build_rejects_the_push_and_a_failed_run_does_not_lose_the_commit(person, apps):
    tree = person("alice", "tree")
    tree.commit(hello__c="int main(void) { return nonsense; }\n", mpi__yml="from: hello.c\nto: hello\nhosts: 3\n")
    code, said = tree.push("faulty")
    assert code == 1
    assert "remote: hello.c:1" in said
    assert "nonsense" in said
    assert "[remote rejected]" in said
    assert not tree.on_cluster("faulty")
    manifest = "from: hello.c\nto: hello\nhosts: 3\nargs: [crash]\n"
    crashing = tree.commit(hello__c=HELLO["hello.c"], mpi__yml=manifest)
    code, said = tree.push("faulty")
    assert code != 0
    # srun's exit code is the highest of all ranks, and it ends the others with SIGTERM.
    assert re.search(r"faulty run 2: failed, [\d.]+ s, exit code 1(39|43) ", said), said
    assert "task 1: Segmentation fault" in said
    assert "The commit is in the repository all the same" in said
    assert tree.on_cluster("faulty") == crashing
    # Nobody sends: without a limit it would stand still for ever.
    tree.commit(mpi__yml=manifest.replace("crash", "deadlock") + "time_limit: 3s\n")
    code, said = tree.push("faulty")
    assert code != 0
    assert re.search(r"faulty run 3: stopped at its time limit, 3\.\d s, exit code 124", said), said
    # No step is left behind.
    until("Slurm has nothing to do", lambda: not apps("alice", "runs", "faulty").rc and not _queue(apps))
    rows = apps("alice", "runs", "faulty").stdout.splitlines()
    assert [row.split()[1] for row in rows[1:]] == ["rejected", "failed", "timeout"]


def _queue(apps):
    return [run for run in json.loads(apps("alice", "list", "--json").stdout) if run["state"] in ("queued", "running")]


def test_a_push_during_a_run_waits_and_a_cut_connection_ends_no_run(site, person, apps, compute):
    tree = person("alice", "tree")
    # All that there is: so the second one waits.
    cores = site.root("head").check_output("sinfo --noheader --format=%%c | head -n 1").rstrip("+")
    manifest = f"from: hello.c\nto: hello\nhosts: {len(compute)}\nranks_per_host: {cores}\nargs: [wait, {RELEASE}]\n"
    tree.commit(hello__c=HELLO["hello.c"], mpi__yml=manifest)
    first = tree.pushing("waiting")
    until("the first runs", lambda: "C: rank 0" in apps("alice", "log", "waiting", "1").stdout)
    os.killpg(first.pid, 9)
    first.communicate()
    tree.commit(more="a file\n")
    second = tree.pushing("waiting")
    until("the second is in the queue", lambda: apps("alice", "status", "waiting", "2").rc == 0)
    until("it waits", lambda: state(apps, "waiting", 2)["state"] == "queued")
    assert state(apps, "waiting", 1)["state"] == "running"
    said = told(second, "waiting in the queue: ")
    site.root("head").check_output("touch %s", RELEASE)
    said += second.communicate(timeout=60)[1]
    assert second.returncode == 0, said
    assert "waiting run 2: completed" in said
    run = state(apps, "waiting", 1)
    assert run["state"] == "completed"
    assert len(run["hosts"]) == len(compute)


def test_a_run_is_cancelled_and_runs_are_seen_by_others_only_if_shared(site, person, apps):
    tree = person("alice", "tree")
    tree.commit(hello__c=HELLO["hello.c"], mpi__yml=f"from: hello.c\nto: hello\nhosts: 2\nargs: wait {RELEASE}-never\n")
    push = tree.pushing("mine")
    until("it runs", lambda: "C: rank 0" in apps("alice", "log", "mine").stdout)
    for command in ("status", "log", "runs", "cancel"):
        refused = apps("bob", command, "alice/mine")
        assert refused.rc == 1
        assert "rank" not in refused.stdout
    assert apps("alice", "share", "mine").rc == 0
    assert "C: rank 0 of 2" in apps("bob", "log", "alice/mine").stdout
    assert "is not yours" in apps("bob", "cancel", "alice/mine").stderr
    assert "is not yours" in apps("bob", "run", "alice/mine").stderr
    assert "mine run 1: cancelled" in apps("alice", "cancel", "mine").stdout
    assert push.wait(30) != 0
    assert apps("alice", "unshare", "mine").rc == 0
    assert apps("bob", "log", "alice/mine").rc == 1
    # The key opens its owner's repositories only, and the shell is an ordinary one.
    other = person("bob", "bobs")
    other.commit(hello__c=HELLO["hello.c"], mpi__yml="from: hello.c\nto: hello\nhosts: 1\n")
    other.user = "alice"
    assert other.push("mine")[0] != 0
    assert other.push("stolen")[0] != 0
    other.user = "bob"
    code, said = other.push("../alice/apps/mine")
    assert code != 0
    assert "building" not in said
    assert site.login("alice", "head", tree.path.parent / "alice").stdout == "alice\nhead\n"
    assert "no application" in apps("alice", "remove", "--yes", "nothing").stderr
    assert apps("alice", "remove", "--yes", "mine").rc == 0
    assert "mine" not in apps("alice", "list").stdout


def test_a_playbook_runs_an_application_and_returns_ranks_output_and_time(site, tmp_path):
    source = tmp_path / "waves"
    source.mkdir()
    (source / "hello.c").write_text(HELLO["hello.c"])
    (source / "mpi.yml").write_text("from: hello.c\nto: hello\nhosts: 3\n")
    report = tmp_path / "report.json"
    variables = json.dumps({"mpi_app_src": str(source), "mpi_app_report": str(report)})
    check = site.play("mpi_app", "--check", "-e", variables).succeeded()
    assert "mpicc -O2 -o hello hello.c -lm" in check.output
    site.play("mpi_app", "-e", variables, "-e", "mpi_app_hosts=2").succeeded()
    found = json.loads(report.read_text())
    assert (found["state"], found["exit_code"], found["number"]) == ("completed", 0, 1)
    assert sorted(rank for ranks in found["ranks"].values() for rank in ranks) == [0, 1]
    assert len(found["hosts"]) == 2
    assert found["output"].count("C: rank") == 2
    assert found["seconds"] > 0
    failed = site.play("mpi_app", "-e", variables, "-e", '{"mpi_app_options": {"args": "crash"}}')
    assert failed.code != 0
    assert "waves run 2: failed, exit code 1" in failed.output


def test_verify_pushes_an_application_and_measures_the_network(site, compute):
    site.play("verify", "-e", '{"verify_checks": ["mpi_service", "mpi_network"]}').succeeded()
    report = {check["name"]: check for check in json.loads((site.path / "verify.json").read_text())["checks"]}
    assert report["mpi_service"]["ok"]
    links = report["mpi_network"]["detail"]["links"]
    pairs = {frozenset(link["hosts"]) for link in links}
    assert len(links) == len(pairs) == len(compute) * (len(compute) - 1) // 2
    assert all(link["latency_us"] > 0 and link["bandwidth_mb_s"] > 0 for link in links)
    picture = (site.path / "verify-network.svg").read_text()
    assert all(f"{one} - {two}" in picture or f"{two} - {one}" in picture for one, two in map(tuple, pairs))


def test_without_slurm_mpirun_takes_hosts_that_answer_and_too_few_is_an_answer_at_once(site, person, apps, compute):
    tree = person("alice", "tree")
    manifest = f"from: hello.c\nto: hello\nhosts: {len(compute)}\nenv:\n  COLOUR: blue\n"
    tree.commit(hello__c=HELLO["hello.c"], mpi__yml=manifest)
    site.play("mpi_service", "-e", "cluster_scheduler=none").succeeded()
    try:
        code, said = tree.push("direct")
        assert code == 0, said
        assert sorted(re.findall(r"rank \d of \d on (\w+), sum \d+, blue", said)) == sorted(compute)
        lost = compute[1]
        site.root(lost).check_output("systemctl stop ssh")
        tree.commit(more="a file\n")
        code, said = tree.push("direct")
        assert code == 1
        assert f"asks for {len(compute)} hosts, and {len(compute) - 1} of {len(compute)} answer now" in said
        assert "$ mpicc" not in said
        code, said = tree.push("direct", "-o", f"hosts={len(compute) - 1}", "-o", "args=crash")
        assert code != 0
        assert sorted(re.findall(r"rank \d of \d on (\w+)", said)) == sorted(set(compute) - {lost})
        assert f"{len(compute) - 1} ranks on" in said
        # Without a scheduler one run waits for the other.
        wait = f"wait {RELEASE}"
        first = apps("alice", "run", "--detach", "-o", f"args={wait}", "-o", "hosts=1", "direct")
        assert first.rc == 0, first.stderr
        until("the first runs", lambda: state(apps, "direct", 4)["state"] == "running")
        assert apps("alice", "run", "--detach", "-o", "hosts=1", "direct").rc == 0
        until("the second has a process", lambda: "pid" in state(apps, "direct", 5))
        assert state(apps, "direct", 5)["state"] == "queued"
        assert "cancelled" in apps("alice", "cancel", "direct", "4").stdout
        until("the second has run", lambda: state(apps, "direct", 5)["state"] == "completed")
    finally:
        subprocess.run(["docker", "exec", _container(site, compute[1]), "systemctl", "start", "ssh"], check=True)
        site.play("mpi_service").succeeded()


def _container(site, node):
    """Return the console of a node, which is there without SSH."""
    return re.search(r"cluster_name: (\w+)", (site.path / "machines.docker.yml").read_text())[1] + f"-{node}"


def test_hostile_manifests_and_repositories_are_refused_and_run_nothing(site, person, apps):
    person("alice", "tree")
    head = site.root("head")
    script = (Path(__file__).parent / "hostile.py").read_text()
    head.check_output("printf %%s %s >/home/alice/hostile.py", script)
    before = head.check_output("find /home /shared /etc /usr/local -newer /home/alice/hostile.py -type f | sort")
    results = json.loads(head.check_output("su - alice -c 'env BASH_ENV=/x GIT_DIR_=x python3 hostile.py'"))
    assert results.pop("MARK") is False
    code, said = results.pop("good, with hooks and tricks")
    assert code == 0, said
    assert "completed" in said
    assert len(results) == 31
    accepted = {name: said for name, (code, said) in results.items() if code == 0}
    assert not accepted
    # Each is refused with a reason, and not by a crash.
    unclear = {name: said for name, (_code, said) in results.items() if "Traceback" in said or len(said) < 40}
    assert not unclear
    ran = {name: said for name, (_code, said) in results.items() if "srun" in said or "$ mpicc" in said}
    assert not ran
    after = head.check_output("find /home /shared /etc /usr/local -newer /home/alice/hostile.py -type f | sort")
    places = ("/home/alice/apps/", "/shared/mpi-alice/")
    assert not [path for path in set(after.split("\n")) - set(before.split("\n")) if not path.startswith(places)]
    head.check_output("rm /home/alice/hostile.py")
