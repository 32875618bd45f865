# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers can't show: a kernel's NFS server and client, and cgroups that are the machine's own.

The tests are in the order of a cluster's life: it is used, its server and its node restart, it is reset and removed.
"""

from __future__ import annotations

import json
import shlex
import subprocess

HELLO = r"""
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    int rank, sum, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    rank++;
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%s %d\n", name, sum);
    MPI_Finalize();
    return 0;
}
"""
# A lock of POSIX, as MPI-IO and data bases take it, is known to the server and to all clients.
LOCK = "import fcntl; file = open('/shared/alice/lock', 'a'); fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
HOLD = f"{LOCK}; print('held', flush=True); import signal; signal.pause()"
# Each line is on the server's disk before the next one is written.
WRITER = """
import os
with open('/shared/alice/lines', 'w') as file:
    for number in range(400):
        print(number, file=file, flush=True)
        os.fsync(file.fileno())
"""
# Memory is only used once it was written to.
GREEDY = "data = bytearray(400 << 20); data[::4096] = b'x' * len(data[::4096])"
MOUNT = "mount -t nfs4 -o vers=4.2,soft,timeo=100,retrans=1,retry=0 {server}:/shared /mnt"
HEAD = "10.97.12.10"


def python(program: str) -> str:
    return f"python3 -c {shlex.quote(program)}"


def mounted(lab, node: str) -> str:
    return lab.run(node, "findmnt --noheadings --output FSTYPE,OPTIONS /shared").stdout


def test_nodes_mount_the_shared_directory_of_the_kernels_server_with_nfs_4_2(lab):
    found = mounted(lab, "node1")
    assert found.startswith("nfs4 ")
    assert "vers=4.2" in found
    assert "hard" in found
    assert lab.root("head", "cat /proc/fs/nfsd/threads") != "0"


def test_what_a_user_writes_on_one_node_is_read_on_the_other(lab):
    lab.alice("node1", "umask 077; mkdir -p /shared/alice; echo from node1 >/shared/alice/text")
    assert lab.alice("head", "cat /shared/alice/text") == "from node1"
    assert lab.root("head", "stat --format '%U %a' /shared/alice/text") == "alice 600"
    lab.alice("head", "echo from head >>/shared/alice/text")
    assert lab.alice("node1", "cat /shared/alice/text") == "from node1\nfrom head"


def test_root_of_a_node_is_nobody_on_the_server(lab):
    assert lab.run("node1", "cat /shared/alice/text").returncode != 0
    assert lab.root("node1", "touch /shared/of-root; stat --format %U /shared/of-root") == "nobody"
    lab.root("head", "rm /shared/of-root")


def test_a_host_outside_of_the_clusters_network_cannot_mount(lab):
    # A network namespace is a host of its own to the kernel's client and, with an interface of its own, to the server.
    lab.root(
        "node1",
        "ip netns add foreign && ip link add link eth0 name foreign0 type macvlan mode bridge"
        " && ip link set foreign0 netns foreign && ip -n foreign link set foreign0 up"
        " && ip -n foreign address add 192.0.2.9/24 dev foreign0",
    )
    lab.root("head", "ip address add 192.0.2.1/24 dev eth0")
    try:
        lab.until(
            "the foreign host reaches the server",
            lambda: (
                lab.run(
                    "node1",
                    "ip netns exec foreign python3 -c "
                    "\"import socket; socket.create_connection(('192.0.2.1', 2049), 5)\"",
                ).returncode
                == 0
            ),
            60,
        )
        refused = lab.run("node1", "ip netns exec foreign " + MOUNT.format(server="192.0.2.1"))
        assert refused.returncode != 0
        assert "denied" in refused.stderr or "not permitted" in refused.stderr or "No such file" in refused.stderr
        # The same host with an address of the cluster's network may: it was the address that was refused.
        lab.root("node1", "ip -n foreign address add 10.97.12.99/24 dev foreign0")
        lab.root("node1", f"ip netns exec foreign sh -c '{MOUNT.format(server=HEAD)} && ls /mnt/alice -d'")
    finally:
        lab.run("node1", "ip netns delete foreign")
        lab.run("head", "ip address delete 192.0.2.1/24 dev eth0")


def test_a_lock_that_one_node_holds_is_refused_to_the_other(lab):
    holder = lab.start("node1", python(HOLD))
    assert holder.stdout.readline().strip() == "held"
    refused = lab.run("head", f"su - alice -c {shlex.quote(python(LOCK))}")
    assert "BlockingIOError" in refused.stderr
    lab.root("node1", "pkill -u alice python3")
    holder.wait(60)
    lab.alice("head", python(LOCK))


def test_users_reach_every_node_without_password_or_question(lab):
    command = "ssh -o BatchMode=yes {} hostname"
    assert lab.alice("node1", command.format("head")) == "head"
    assert lab.alice("head", command.format("node1")) == "node1"


def test_machines_answer_with_certificates_of_the_cluster_once_they_are_configured(lab):
    options = {
        "HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com",
        "UserKnownHostsFile": lab.path / ".secrets/ssh_ca/known_hosts",  # the authority, and no host's key
        "ControlPath": "none",
    }
    common = ["ssh", "-F", str(lab.path / ".secrets/access/ssh_config"), "-o", "BatchMode=yes"]
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    for node in ("head", "node1"):
        argv = [*common, *words, f"root@{node}", "hostname"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, node), done.stderr


def test_an_mpi_program_in_the_shared_directory_runs_over_both_nodes(lab):
    lab.alice("head", f"cd /shared/alice && printf %s {shlex.quote(HELLO)} >hello.c && mpicc -o hello hello.c")
    out = lab.alice("node1", "mpirun -np 2 --host head,node1 /shared/alice/hello", timeout=180)
    assert sorted(out.splitlines()) == ["head 3", "node1 3"]


def test_slurm_ends_a_job_that_uses_more_memory_than_it_asked_for(lab):
    assert lab.root("node1", "stat --file-system --format %T /sys/fs/cgroup") == "cgroup2fs"
    job = lab.alice(
        "head",
        "cd /shared/alice && sbatch --parsable --nodelist=node1 --mem=100 --output=greedy"
        f" --wrap={shlex.quote(python(GREEDY))}",
    )
    kind = f"scontrol --oneliner show job {job} | grep --only-matching 'JobState=[A-Z_]*'"
    lab.until("the job is over", lambda: lab.alice("head", kind) not in ("JobState=PENDING", "JobState=RUNNING"), 120)
    assert lab.alice("head", kind) == "JobState=OUT_OF_MEMORY"
    assert "oom" in lab.root("node1", "dmesg | grep --ignore-case oom | tail -1").lower()


def test_no_write_is_lost_when_the_server_restarts_under_load(lab):
    writer = lab.start("node1", python(WRITER))
    count = "cat /shared/alice/lines 2>/dev/null | wc -l"
    lab.until("the writer writes", lambda: int(lab.root("head", count)) > 20, 60)
    lab.root("head", "systemctl restart nfs-server")
    before = int(lab.root("head", count))
    assert before < 400
    assert writer.wait(240) == 0, writer.stdout.read()
    assert lab.alice("head", "cat /shared/alice/lines").split() == [str(number) for number in range(400)]


def test_a_node_that_restarts_mounts_again_and_takes_jobs(lab):
    started = lab.root("node1", "cat /proc/sys/kernel/random/boot_id")
    lab.run("node1", "systemctl reboot")
    lab.forget("node1")
    lab.until(
        "node1 is another boot",
        lambda: lab.run("node1", "cat /proc/sys/kernel/random/boot_id").stdout.strip() not in ("", started),
        240,
    )
    lab.until("node1 has mounted", lambda: mounted(lab, "node1").startswith("nfs4 "), 120)
    assert lab.alice("node1", "cat /shared/alice/text") == "from node1\nfrom head"
    job = "cd /shared/alice && srun --immediate=120 --nodelist=node1 hostname"
    lab.until("node1 is idle", lambda: "idle" in lab.root("head", "sinfo --noheader --nodes=node1 --format=%T"), 180)
    assert lab.alice("head", job) == "node1"


def test_a_reset_takes_everything_off_a_real_system(lab):
    # Those parts of reset.yml that have something to do here.
    for part in ("reset_jobs", "reset_nodes"):
        lab.play(part)
    for node in ("head", "node1"):
        assert mounted(lab, node) == ""
        assert lab.root(node, "grep -rl turnkey.hpc /etc; getent passwd alice; true") == ""
        assert lab.root(node, "pgrep --list-full slurm; true") == ""
        failed = lab.root(node, "systemctl list-units --failed --no-legend --plain")
        assert failed == ""
    # Users' data stay, and that the directory was ours.
    assert lab.root("head", "cat /shared/alice/text") == "from node1\nfrom head"
    assert json.loads(lab.root("head", "cat /var/lib/turnkey/*")) == {"directories": ["/shared"]}
    assert lab.root("node1", "find /var/lib/turnkey; true") == ""


def test_a_stopped_machine_is_started_again_and_nothing_is_left_of_a_destroyed_one(lab):
    lab.power_off("node1")
    lab.play("provision")
    assert lab.root("node1", "hostname")
    assert any(lab.traces().values())
    lab.play("destroy", "-e", "destroy_confirm=lab")
    assert not any(lab.traces().values()), lab.traces()
