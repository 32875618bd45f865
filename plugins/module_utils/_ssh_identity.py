# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node holds to be part of the SSH mesh: its keys, the files of OpenSSH, and their rendering.

The control node renders and compares, the node itself makes keys and writes; standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems

__all__ = [
    "Node",
    "Paths",
    "apply_files",
    "client_config",
    "ensure_keys",
    "file_changes",
    "fold_host_patterns",
    "known_hosts",
    "name_problems",
    "plan_removal",
    "private_to_public",
    "remove_identity",
    "report",
    "server_config",
]

Run = Callable[..., "tuple[int, str, str]"]

HEADER = "# Managed by turnkey.hpc (role ssh_mesh): changes made here are lost.\n"
# OpenSSH 9.8 began to punish addresses for failed logins.
PENALTIES_SINCE = (9, 8)
USER_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$")
# How many digits the number at the end of a node's name may come to have, so far as the patterns of names go.
FORESEEN_DIGITS = 4
HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
MAX_FILE_BYTES = 1 << 20
# sshd wants to be called by its full path.
SSHD = "/usr/sbin/sshd"


@dataclass(frozen=True)
class Paths:
    """Where things are on a node; ``root`` differs from / in tests only."""

    root: str = ""

    @property
    def ssh(self) -> str:
        """The configuration of OpenSSH."""
        return f"{self.root}/etc/ssh"

    @property
    def ours(self) -> str:
        """What belongs to the mesh, and to nobody else."""
        return f"{self.ssh}/turnkey"

    @property
    def users(self) -> str:
        """The keys of the users."""
        return f"{self.ours}/users"

    @property
    def host_key(self) -> str:
        """The private host key."""
        return f"{self.ssh}/ssh_host_ed25519_key"

    @property
    def host_certificate(self) -> str:
        """The certificate of the host key."""
        return f"{self.ours}/ssh_host_ed25519_key-cert.pub"

    @property
    def server_config(self) -> str:
        """Our piece of sshd's configuration."""
        return f"{self.ssh}/sshd_config.d/20-turnkey.conf"

    @property
    def client_config(self) -> str:
        """Our piece of ssh's configuration."""
        return f"{self.ssh}/ssh_config.d/20-turnkey.conf"

    @property
    def pending(self) -> str:
        """Exists while sshd was not told of a new configuration, even if the run was killed."""
        return f"{self.ours}/.reload-pending"

    def shared_files(self) -> list[str]:
        """The files that don't belong to a user."""
        return [
            f"{self.ours}/user_ca.pub",
            f"{self.ours}/revoked.krl",
            f"{self.ours}/known_hosts",
            self.host_certificate,
            self.server_config,
            self.client_config,
        ]

    def user_key(self, user: str) -> str:
        """The private key of a user."""
        return f"{self.users}/{user}/id_ed25519"


# --- rendering --------------------------------------------------------------------------------------------------------


def fold_host_patterns(members: Sequence[str], domain: str, network: str) -> list[str]:
    """Return the patterns that match all names (alone and with the domain) and all addresses."""
    problems = [f"{name!r} is not a host name." for name in members if not HOST_NAME.match(name)]
    if domain and not HOST_NAME.match(domain):
        problems.append(f"{domain!r} is not a domain.")
    if problems:
        raise InvalidInput(join_problems(problems))
    shapes = {shape for name in members for shape in name_shapes(name.lower())}
    patterns = set(shapes)
    if domain:
        patterns |= {f"{shape}.{domain.lower()}" for shape in shapes}
    if network:
        patterns |= set(network_patterns(network))
    return sorted(patterns)


def name_shapes(name: str) -> list[str]:
    """Return the patterns of a name: after node9 comes node10, and no other node has to be told what it looks like."""
    label, dot, rest = re.sub(r"\d", "?", name).partition(".")
    stem = label.rstrip("?")
    digits = len(label) - len(stem)
    if not stem or not digits:
        return [f"{label}{dot}{rest}"]
    return [f"{stem}{'?' * length}{dot}{rest}" for length in {*range(1, FORESEEN_DIGITS + 1), digits}]


def network_patterns(network: str) -> list[str]:
    """Return the patterns that match exactly the addresses of an IPv4 network."""
    try:
        parsed = ipaddress.ip_network(network, strict=False)
    except ValueError as error:
        raise InvalidInput(f"The cluster's network {network!r} is not a network: {error}.") from error
    if not isinstance(parsed, ipaddress.IPv4Network) or parsed.prefixlen == 0:
        raise InvalidInput(f"The cluster's network {network!r} is not an IPv4 network such as 10.213.77.0/24.")
    octets, prefix = parsed.network_address.packed, parsed.prefixlen
    fixed = [str(octet) for octet in octets[: prefix // 8]]
    if prefix == 32:
        return [".".join(fixed)]
    first = octets[prefix // 8]
    choices = octet_patterns(first, first + 2 ** (8 - prefix % 8) - 1)
    # A star at the end stands for all octets that are left.
    rest = ["*"] if prefix < 24 and choices != ["*"] else []
    return [".".join([*fixed, choice, *rest]) for choice in choices]


def octet_patterns(low: int, high: int) -> list[str]:
    """Return the fewest patterns of fixed leading digits and ``?`` for the numbers from low to high."""
    if (low, high) == (0, 255):
        return ["*"]
    result = []
    for length in (1, 2, 3):
        numbers = [text for text in map(str, range(256)) if len(text) == length]
        result += cover(numbers, low, high)
    return result


def cover(numbers: list[str], low: int, high: int, prefix: str = "") -> list[str]:
    """Return the patterns for those of ``numbers`` (all of one length, beginning with prefix) in the range."""
    inside = [text for text in numbers if low <= int(text) <= high]
    if not inside:
        return []
    if len(inside) == len(numbers):
        return [prefix + "?" * (len(numbers[0]) - len(prefix))]
    result = []
    for digit in "0123456789":
        branch = [text for text in numbers if text.startswith(prefix + digit)]
        result += cover(branch, low, high, prefix + digit)
    return result


def known_hosts(patterns: Sequence[str], host_ca: str) -> str:
    """Return the known_hosts file that trusts the host CA for the cluster's names."""
    return f"{HEADER}@cert-authority {','.join(patterns)} {host_ca}\n"


def server_config(
    with_certificate: bool, host_key_line: bool, max_startups: str, exempt: Sequence[str], openssh: Sequence[int]
) -> str:
    """Return our piece of sshd_config."""
    lines = []
    if host_key_line:
        lines.append("HostKey /etc/ssh/ssh_host_ed25519_key")
    if with_certificate:
        lines.append("HostCertificate /etc/ssh/turnkey/ssh_host_ed25519_key-cert.pub")
    lines += [
        "TrustedUserCAKeys /etc/ssh/turnkey/user_ca.pub",
        "RevokedKeys /etc/ssh/turnkey/revoked.krl",
        "UseDNS no",
    ]
    if max_startups:
        lines.append(f"MaxStartups {max_startups}")
    if tuple(openssh) >= PENALTIES_SINCE and exempt:
        lines += [
            "# One user's failed logins must not shut out the others on the same node.",
            f"PerSourcePenaltyExemptList {','.join(exempt)}",
        ]
    lines += [
        "# The mesh is for ordinary users: its CA opens nothing for root.",
        "Match User root",
        "    TrustedUserCAKeys none",
    ]
    return HEADER + "\n".join(lines) + "\n"


def client_config(patterns: Sequence[str]) -> str:
    """Return our piece of ssh_config. OpenSSH tries PATH-cert.pub with each IdentityFile and skips missing ones."""
    options = [
        "StrictHostKeyChecking yes",
        "GlobalKnownHostsFile /etc/ssh/turnkey/known_hosts /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
        "RevokedHostKeys /etc/ssh/turnkey/revoked.krl",
        "IdentityFile /etc/ssh/turnkey/users/%u/id_ed25519",
        "# Naming a key switches OpenSSH's own list off: here it is again.",
        *(f"IdentityFile ~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")),
    ]
    return HEADER + f"Host {' '.join(patterns)}\n" + "".join(f"    {option}\n" for option in options)


def name_problems(users: Sequence[str], name: str) -> list[str]:
    """Return what is wrong with names that become paths, principals and key ids."""
    problems = [
        f"{user!r} can't be a user of the mesh: it is no user name. Remedy: correct ssh_mesh_users."
        for user in users
        if not USER_NAME.match(user)
    ]
    if "root" in users:
        problems.append("root can't be a user of the mesh. Remedy: take it from ssh_mesh_users.")
    if not HOST_NAME.match(name):
        problems.append(f"{name!r} is not a host name. Remedy: rename the node in the inventory.")
    return problems


def file_changes(wanted: dict[str, bytes], present: dict[str, dict[str, Any]]) -> list[str]:
    """Return the paths whose content, mode or owner differ from what the report of the node says."""
    return [
        path
        for path, data in wanted.items()
        if {key: present.get(path, {}).get(key) for key in ("sha256", "mode", "uid", "gid")}
        != {"sha256": hashlib.sha256(data).hexdigest(), "mode": "0644", "uid": 0, "gid": 0}
    ]


# --- the node ---------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """The machine: everything that reaches out of this file goes through here."""

    run: Run
    paths: Paths
    # (uid, gid) of a user, or None.
    account: Callable[[str], tuple[int, int] | None]
    chown: Callable[[str, int, int], None] = os.chown
    owner: tuple[int, int] = (0, 0)


def private_to_public(text: str) -> str:
    """Return the public key line of an unencrypted private key in OpenSSH's own format, or an empty string."""
    match = re.fullmatch(
        r"\s*-----BEGIN OPENSSH PRIVATE KEY-----\n(.+)\n-----END OPENSSH PRIVATE KEY-----\s*", text, re.DOTALL
    )
    if not match:
        return ""
    try:
        data = base64.b64decode("".join(match[1].split()), validate=True)
        magic = b"openssh-key-v1\0"
        if not data.startswith(magic):
            return ""
        cipher, rest = take(data[len(magic) :])
        _kdf, rest = take(rest)
        _options, rest = take(rest)
        blob, private = take(rest[4:])
        kind, _key = take(blob)
        take(private)
    except ValueError:
        return ""
    if cipher != b"none" or kind != b"ssh-ed25519":
        return ""
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def take(data: bytes) -> tuple[bytes, bytes]:
    """Split the first string of SSH's wire form off."""
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size:
        raise ValueError("too short")
    return data[4 : 4 + size], data[4 + size :]


def read_bytes(path: str) -> bytes | None:
    """Return the content of a regular file of sane size, None if there is none; links are not followed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return stream.read(MAX_FILE_BYTES)


def read_text(path: str) -> str:
    """Return the text of a file, empty if there is none."""
    return (read_bytes(path) or b"").decode("utf-8", "replace")


def user_problems(node: Node, path: str, user: str) -> str:
    """Say what is wrong with a user's key, in a few words; empty if nothing."""
    account = node.account(user)
    if not os.path.lexists(path):
        return "missing"
    key = os.lstat(path)
    if not private_to_public(read_text(path)):
        return "broken"
    problem = directory_problem(node, str(Path(path).parent))
    if problem:
        return problem
    if account is not None and ((key.st_uid, key.st_gid) != account or stat.S_IMODE(key.st_mode) != 0o600):
        return "of another owner or mode"
    return ""


def ensure_keys(node: Node, users: Sequence[str], name: str, revoked: Iterable[str], check: bool) -> list[str]:
    """Make the keys that are missing, remove those of users that are gone; return what was (or would be) done."""
    done = []
    problems = config_problems(node, check)
    host_text = read_text(node.paths.host_key)
    host_public = private_to_public(host_text)
    if host_text and not host_public:
        problems.append(
            f"The host key {node.paths.host_key} can't be read as an ed25519 key without passphrase. "
            "Remedy: remove it (and its .pub) to have a new one made."
        )
    if host_public and fingerprint(host_public) in set(revoked):
        problems.append(
            f"The host key {node.paths.host_key} is on the revocation list. "
            "Remedy: remove it (and its .pub) to have a new one made."
        )
    missing = [user for user in users if node.account(user) is None]
    if missing and not check:
        problems.append(
            f"There is no account for {', '.join(missing)}. Remedy: create it (role users), or correct ssh_mesh_users."
        )
    if problems:
        raise HpcError(join_problems(problems))

    if not host_public:
        done.append(f"make host key {node.paths.host_key}")
        if not check:
            make_key(node, node.paths.host_key, f"root@{name}", None)
    for directory in (node.paths.ours, node.paths.users):
        if directory_problem(node, directory):
            done.append(f"make or mend directory {directory}")
            if not check:
                make_directory(node, directory)
    for user in users:
        path = node.paths.user_key(user)
        problem = user_problems(node, path, user)
        if not problem and fingerprint(private_to_public(read_text(path))) in set(revoked):
            problem = "revoked"
        if problem:
            done.append(f"make or mend key {path} ({problem})")
            if not check:
                mend_user_key(node, path, user, name, problem in ("missing", "broken", "revoked"))
    for gone in sorted(set(list_directory(node.paths.users)) - set(users)):
        done.append(f"remove {node.paths.users}/{gone}")
        if not check:
            remove_tree(f"{node.paths.users}/{gone}")
    return done


def directory_problem(node: Node, path: str) -> str:
    """Say what is wrong with a directory of ours, in a few words; empty if nothing."""
    if not os.path.lexists(path):
        return "no directory"
    status = os.lstat(path)
    wanted = (True, 0o755, *node.owner)
    if (stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != wanted:
        return "directory of another owner or mode"
    return ""


def mend_user_key(node: Node, path: str, user: str, name: str, new: bool) -> None:
    """Give a user a key, or the right owner and mode to the one in place.

    The directory belongs to root and only the key to the user, so that nobody can put links where root writes.
    """
    directory = str(Path(path).parent)
    account = node.account(user)
    if account is None:
        raise HpcError(f"The account {user!r} is gone.")
    make_directory(node, directory)
    if new or not os.path.lexists(path):
        for suffix in ("-cert.pub", ".pub"):
            with contextlib.suppress(FileNotFoundError):
                Path(path + suffix).unlink()
        make_key(node, path, f"{user}@{name}", account)
        return
    node.chown(path, *account)
    Path(path).chmod(0o600)


def make_directory(node: Node, path: str) -> None:
    """Make a directory that root alone can write to; what else has its name goes away."""
    if os.path.lexists(path) and (Path(path).is_symlink() or not Path(path).is_dir()):
        Path(path).unlink()
    Path(path).mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(path).chmod(0o755)
    node.chown(path, *node.owner)


def make_key(node: Node, path: str, comment: str, account: tuple[int, int] | None) -> None:
    """Make a key pair beside its place and move it there, the private half last."""
    with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".turnkey-") as work:
        fresh = f"{work}/key"
        code, out, err = node.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", fresh])
        if code != 0:
            raise HpcError(f"ssh-keygen can't make {path}: {(err or out).strip()}")
        Path(fresh).chmod(0o600)
        Path(fresh + ".pub").chmod(0o644)
        if account is not None:
            node.chown(fresh, *account)
        Path(fresh + ".pub").replace(path + ".pub")
        Path(fresh).replace(path)


def fingerprint(public_key: str) -> str:
    """Return the fingerprint of a public key line, as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def list_directory(path: str) -> list[str]:
    """Return the names in a directory, none if it is missing."""
    try:
        return [entry.name for entry in Path(path).iterdir()]
    except OSError:
        return []


def remove_tree(path: str) -> None:
    """Remove a file, a link or a directory."""
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path)
    else:
        Path(path).unlink()


def directives(path: str) -> list[tuple[int, str, str]]:
    """Return (line number, keyword in lower case, value) of a configuration file of OpenSSH."""
    result = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        match = re.match(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)(.*?)\s*$", line)
        if match:
            result.append((number, match[1].lower(), match[2]))
    return result


def other_server_files(paths: Paths) -> list[str]:
    """Return sshd's configuration files that aren't ours."""
    directory = str(Path(paths.server_config).parent)
    pieces = [f"{directory}/{name}" for name in sorted(list_directory(directory)) if name.endswith(".conf")]
    return [f"{paths.ssh}/sshd_config", *(piece for piece in pieces if piece != paths.server_config)]


def config_problems(node: Node, check: bool) -> list[str]:
    """Return what in the site's configuration of OpenSSH stands in the way of the mesh."""
    paths = node.paths
    problems = []
    for half, piece in (("sshd", paths.server_config), ("ssh", paths.client_config)):
        path, pattern = f"{paths.ssh}/{half}_config", f"/etc/ssh/{half}_config.d/*.conf"
        if not Path(path).exists():
            if not check:
                package = "openssh-server" if half == "sshd" else "openssh-client"
                problems.append(
                    f"There is no {path}. Remedy: install {package} (role ssh_mesh, entry point install); "
                    "if it is installed, bring its configuration back."
                )
        elif not includes(path, Path(piece).parent.name):
            problems.append(
                f"{path} doesn't read {pattern}. Remedy: put 'Include {pattern}' at its top, as Debian's own file has."
            )
    for path in other_server_files(paths):
        for number, keyword, value in directives(path):
            if keyword in ("trustedusercakeys", "revokedkeys") and value.lower() != "none":
                problems.append(
                    f"{path}:{number} sets {keyword} {value}, which the mesh has to set. Remedy: take that line away."
                )
    return problems


def includes(path: str, directory: str) -> bool:
    """Tell whether a configuration file reads all pieces in ``directory``, for every host and user."""
    for _number, keyword, value in directives(path):
        if keyword in ("match", "host"):
            return False
        if keyword == "include" and any(word.strip('"').endswith(f"{directory}/*.conf") for word in value.split()):
            return True
    return False


def needs_host_key_line(paths: Paths) -> bool:
    """Tell whether the site names host keys, but not the one with the certificate.

    Naming a key switches sshd's own list off: without need, the line must not be there.
    """
    named = [
        value
        for path in other_server_files(paths)
        for _line, keyword, value in directives(path)
        if keyword == "hostkey"
    ]
    return bool(named) and not any(value.strip('"').endswith("/ssh_host_ed25519_key") for value in named)


def report(node: Node, users: Sequence[str], service: str, with_text: bool) -> dict[str, Any]:
    """Return what the control node has to know: public things only."""
    paths = node.paths
    users = [user for user in users if USER_NAME.match(user)]
    found: dict[str, Any] = {}
    for path in [*paths.shared_files(), *(paths.user_key(user) + "-cert.pub" for user in users)]:
        data = read_bytes(path)
        if data is None:
            continue
        status = os.lstat(path)
        found[path] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "uid": status.st_uid - node.owner[0],
            "gid": status.st_gid - node.owner[1],
        }
        if path.endswith("-cert.pub") or (with_text and not path.endswith(".krl")):
            found[path]["text"] = data.decode("utf-8", "replace")
    _code, _out, banner = node.run(["ssh", "-V"]) if shutil.which("ssh") else (0, "", "")
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", banner)
    return {
        "host_key": private_to_public(read_text(paths.host_key)),
        "users": {user: private_to_public(read_text(paths.user_key(user))) for user in users},
        "files": found,
        "host_key_line": needs_host_key_line(paths),
        "openssh": [int(version[1]), int(version[2])] if version else [0, 0],
        "reload": Path(paths.pending).exists() or not is_running(node, service),
    }


def apply_files(node: Node, files: dict[str, bytes], service: str, reload: bool) -> None:
    """Write the files; if sshd then refuses its configuration, put everything back."""
    paths = node.paths
    for path in (paths.server_config, paths.client_config):
        Path(path).parent.mkdir(mode=0o755, exist_ok=True)
    before = {path: read_bytes(path) for path in files}
    was_pending = Path(paths.pending).exists()
    if reload:
        write_file(node, paths.pending, b"")
    try:
        for path, data in files.items():
            write_file(node, path, data)
        if reload:
            validate(node, "the new configuration, so the old files are back in place")
    except (HpcError, OSError):
        for path, old in before.items():
            if old is not None:
                write_file(node, path, old)
            elif os.path.lexists(path):
                Path(path).unlink()
        if reload and not was_pending:
            Path(paths.pending).unlink()
        raise
    if reload:
        reload_service(node, service, start=True)
        Path(paths.pending).unlink()


def validate(node: Node, what: str) -> None:
    """Let sshd check its configuration."""
    # sshd refuses even to test without this; it is made by the service, which may not run yet.
    Path(f"{node.paths.root}/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    code, out, err = node.run([SSHD, "-t"])
    if code != 0:
        raise HpcError(
            f"sshd refuses {what}: {(err or out).strip()}",
            f"correct what it names, then run again (the mesh's own piece is {node.paths.server_config}).",
        )


def has_systemd(node: Node) -> bool:
    """Tell whether systemd runs here; it doesn't where an image is built."""
    return Path(f"{node.paths.root}/run/systemd/system").is_dir()


def is_running(node: Node, service: str) -> bool:
    """Tell whether sshd listens, itself or through its socket."""
    if not has_systemd(node):
        return True
    code, _out, _err = node.run(["systemctl", "is-active", "--quiet", f"{service}.service", f"{service}.socket"])
    return code == 0


def reload_service(node: Node, service: str, start: bool) -> None:
    """Tell sshd of its new configuration; connections that exist go on.

    Where a socket starts sshd, each connection reads the configuration anyway.
    """
    if not has_systemd(node):
        return
    if not is_running(node, service):
        verb = "start"
        if not start:
            return
    else:
        code, _out, _err = node.run(["systemctl", "is-active", "--quiet", f"{service}.service"])
        if code != 0:
            return
        verb = "reload"
    code, out, err = node.run(["systemctl", verb, f"{service}.service"])
    if code != 0:
        raise HpcError(f"{service}.service can't {verb}: {(err or out).strip()}", f"see journalctl -u {service}.")


def write_file(node: Node, path: str, data: bytes) -> None:
    """Write a world-readable file of root's so that nobody ever sees half of it."""
    handle, name = tempfile.mkstemp(dir=Path(path).parent, prefix=".turnkey-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(0o644)
        node.chown(name, *node.owner)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def plan_removal(paths: Paths) -> list[str]:
    """Return what reset takes away."""
    return [path for path in (paths.server_config, paths.client_config, paths.ours) if os.path.lexists(path)]


def remove_identity(node: Node, remove: Sequence[str], service: str) -> None:
    """Take the mesh away: sshd forgets it before its files go, so that a killed run does all of it again."""
    configuration = [path for path in remove if path != node.paths.ours]
    for path in configuration:
        Path(path).unlink()
    if Path(SSHD).exists() and Path(f"{node.paths.ssh}/sshd_config").exists():
        validate(node, "the configuration that is left without the mesh")
        reload_service(node, service, start=False)
    for path in remove:
        if path not in configuration:
            remove_tree(path)
