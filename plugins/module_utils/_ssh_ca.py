# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH certificate authority of a cluster: keys, certificates, revocations. Runs on the control node only."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import secrets
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    CRYPTOGRAPHY_IMPORT_ERROR: str | None = None
except ImportError:  # told to the user by require_cryptography()
    CRYPTOGRAPHY_IMPORT_ERROR = traceback.format_exc()

__all__ = [
    "CRYPTOGRAPHY_IMPORT_ERROR",
    "USER_EXTENSIONS",
    "Authority",
    "AuthorityPlan",
    "CaKey",
    "Certificate",
    "CertificateRequest",
    "Credential",
    "Revocation",
    "apply_authority",
    "apply_credential",
    "host_request",
    "is_barred",
    "load_authority",
    "log_issued",
    "parse_certificate",
    "parse_revocations",
    "plan_authority",
    "plan_credential",
    "plan_credential_removal",
    "plan_wipe",
    "public_fingerprint",
    "read_revocations",
    "renewal_reasons",
    "require_cryptography",
    "retire",
    "retired_lines",
    "sign",
    "source_addresses",
    "spec_text",
    "user_request",
]

Run = Callable[..., "tuple[int, str, str]"]

DAY_SECONDS = 86400
# A certificate begins in the past, for nodes whose clock is behind.
SKEW_SECONDS = 3600
USER_EXTENSIONS = ("permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty")
KNOWN_EXTENSIONS = (*USER_EXTENSIONS, "permit-user-rc")
KINDS = ("host", "user")
PUBLIC_KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")

KRL_NAME = "revoked.krl"
SPEC_NAME = "revoked.spec"
KNOWN_HOSTS_NAME = "known_hosts"
ISSUED_NAME = "issued.jsonl"
RETIRED_NAME = "retired.spec"


def require_cryptography() -> None:
    """Fail with a remedy where the library ``cryptography`` is missing."""
    if CRYPTOGRAPHY_IMPORT_ERROR is not None:
        raise HpcError(
            "The Python library cryptography is missing on the control node.",
            "install the requirements.txt of this collection into the Python that runs Ansible.",
        )


def stamp(seconds: int) -> str:
    """Return a time for people, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def public_fingerprint(public_key: str) -> str:
    """Return the fingerprint (``SHA256:...``) of a public key line, as ssh-keygen -l prints it."""
    parts = public_key.split()
    if len(parts) < 2:
        raise InvalidInput(f"{public_key!r} is not a public SSH key.", "give a line like 'ssh-ed25519 AAAA...'.")
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except ValueError as error:
        raise InvalidInput(f"{public_key!r} is not a public SSH key ({error}).") from error
    return blob_fingerprint(blob)


def blob_fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a key in its wire form."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# --- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CertificateRequest:
    """What a certificate has to say."""

    kind: str
    public_key: str
    key_id: str
    principals: tuple[str, ...]
    validity_seconds: int
    source_addresses: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()

    @property
    def critical_options(self) -> dict[str, str]:
        """The critical options of the certificate."""
        return {"source-address": ",".join(self.source_addresses)} if self.source_addresses else {}


@dataclass(frozen=True)
class Certificate:
    """A certificate that was read from its text."""

    text: str
    kind: str
    key_id: str
    serial: int
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: dict[str, str]
    extensions: tuple[str, ...]
    fingerprint: str
    ca_fingerprint: str
    signed: bool

    def describe(self) -> str:
        """Return one line for diffs."""
        return (
            f"{self.kind} certificate {self.key_id}: principals {','.join(self.principals)}, serial {self.serial}, "
            f"valid until {stamp(self.valid_before)}"
        )


def host_request(public_key: str, name: str, principals: Sequence[str], validity_days: int) -> CertificateRequest:
    """Return the request for the certificate of a node's host key."""
    return CertificateRequest(
        kind="host",
        public_key=public_key,
        key_id=f"host:{name}",
        principals=tuple(dict.fromkeys(principals)),
        validity_seconds=validity_days * DAY_SECONDS,
    )


def user_request(
    public_key: str,
    user: str,
    name: str,
    validity_days: int,
    sources: Sequence[str],
    extensions: Sequence[str],
) -> CertificateRequest:
    """Return the request for the certificate of one user's key on one node."""
    return CertificateRequest(
        kind="user",
        public_key=public_key,
        key_id=f"{user}@{name}",
        principals=(user,),
        validity_seconds=validity_days * DAY_SECONDS,
        source_addresses=tuple(sources),
        extensions=tuple(sorted(extensions)),
    )


def source_addresses(networks: Iterable[str]) -> tuple[str, ...]:
    """Return ``networks`` in CIDR notation plus loopback: where a user's certificate may be used."""
    result = []
    for network in networks:
        try:
            result.append(str(ipaddress.ip_network(network, strict=False)))
        except ValueError as error:
            raise InvalidInput(f"The source network {network!r} is not a network: {error}.") from error
    return tuple(dict.fromkeys([*result, "127.0.0.0/8", "::1/128"]))


def parse_certificate(text: str) -> Certificate:
    """Read a certificate (one line, ``...-cert-v01@openssh.com AAAA...``)."""
    require_cryptography()
    try:
        loaded = serialization.load_ssh_public_identity(text.strip().encode())
        if not isinstance(loaded, serialization.SSHCertificate):
            raise InvalidInput(f"{text[:60]!r} is a public key, not a certificate.")
        try:
            loaded.verify_cert_signature()
            signed = True
        except InvalidSignature:
            signed = False
        return Certificate(
            text=text.strip() + "\n",
            kind="user" if loaded.type is serialization.SSHCertificateType.USER else "host",
            key_id=loaded.key_id.decode("utf-8", "replace"),
            serial=loaded.serial,
            principals=tuple(name.decode("utf-8", "replace") for name in loaded.valid_principals),
            valid_after=loaded.valid_after,
            valid_before=loaded.valid_before,
            critical_options={name.decode(): value.decode() for name, value in loaded.critical_options.items()},
            extensions=tuple(sorted(name.decode() for name in loaded.extensions)),
            fingerprint=public_fingerprint(public_line(loaded.public_key())),
            ca_fingerprint=public_fingerprint(public_line(loaded.signature_key())),
            signed=signed,
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{text[:60]!r} is not an SSH certificate ({error}).") from error


def public_line(key: Any) -> str:
    """Return the one-line form of a public key."""
    line: bytes = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode()


def sign(request: CertificateRequest, ca: CaKey, now: int, serial: int | None = None) -> Certificate:
    """Sign what ``request`` asks for with ``ca``."""
    certificate_type = serialization.SSHCertificateType
    builder = (
        serialization.SSHCertificateBuilder()
        .public_key(load_public(request.public_key))
        .serial(secrets.randbits(63) if serial is None else serial)
        .type(certificate_type.HOST if request.kind == "host" else certificate_type.USER)
        .key_id(request.key_id.encode())
        .valid_principals([name.encode() for name in request.principals])
        .valid_after(now - SKEW_SECONDS)
        .valid_before(now + request.validity_seconds)
    )
    for name, value in sorted(request.critical_options.items()):
        builder = builder.add_critical_option(name.encode(), value.encode())
    for name in sorted(request.extensions):
        builder = builder.add_extension(name.encode(), b"")
    text = builder.sign(ca.private).public_bytes().decode()
    return parse_certificate(f"{text} {request.key_id}\n")


def load_public(public_key: str) -> Any:
    """Return the key object of a public key line."""
    try:
        return serialization.load_ssh_public_key(public_key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{public_key[:80]!r} is not a public SSH key ({error}).") from error


def renewal_reasons(
    request: CertificateRequest,
    current: str,
    ca_fingerprint: str,
    now: int,
    renew_before_seconds: int,
    revocations: Sequence[Revocation] = (),
) -> list[str]:
    """Say why ``current`` (the text of a certificate, or nothing) can't stay; an empty list if it can."""
    if not current.strip():
        return ["there is none"]
    try:
        certificate = parse_certificate(current)
    except InvalidInput:
        return ["the one in place can't be read"]
    reasons = []
    if certificate.ca_fingerprint != ca_fingerprint:
        reasons.append("it is of another authority")
    elif not certificate.signed:
        reasons.append("its signature is wrong")
    if certificate.fingerprint != public_fingerprint(request.public_key):
        reasons.append("it is for another key")
    for name in ("kind", "key_id", "principals", "critical_options", "extensions"):
        if getattr(certificate, name) != getattr(request, name):
            reasons.append(f"its {name.replace('_', ' ')} changed")
    if certificate.valid_before - certificate.valid_after != request.validity_seconds + SKEW_SECONDS:
        reasons.append("its validity changed")
    if certificate.valid_after > now:
        reasons.append(f"it is not valid before {stamp(certificate.valid_after)}")
    if certificate.valid_before - now < renew_before_seconds:
        reasons.append(f"it ends on {stamp(certificate.valid_before)}")
    reasons += [f"it is revoked ({entry.line})" for entry in revocations if entry.matches(certificate)]
    return reasons


# --- revocations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revocation:
    """One line of the revocation list, in the format of ssh-keygen's KRL specifications."""

    line: str
    serials: tuple[int, int] | None = None
    key_id: str | None = None
    fingerprint: str | None = None

    def matches(self, certificate: Certificate) -> bool:
        """Tell whether the line revokes ``certificate``."""
        if self.serials is not None:
            return self.serials[0] <= certificate.serial <= self.serials[1]
        if self.key_id is not None:
            return self.key_id == certificate.key_id
        return self.fingerprint in (certificate.fingerprint, certificate.ca_fingerprint)


SHA256_FINGERPRINT = re.compile(r"^SHA256:[A-Za-z0-9+/]{43}=?$")


def parse_revocations(lines: Iterable[str]) -> list[Revocation]:
    """Read the revocation list; all wrong lines are reported at once."""
    result, problems = [], []
    for number, line in enumerate(lines, start=1):
        try:
            result.append(parse_revocation(str(line).strip()))
        except InvalidInput as error:
            problems.append(f"Entry {number} of the revocation list: {error}")
    if problems:
        raise InvalidInput(join_problems(problems))
    return list({entry.line: entry for entry in result}.values())


def parse_revocation(line: str) -> Revocation:
    """Read one line of the revocation list."""
    kind, colon, value = line.partition(":")
    kind, value = kind.strip().lower(), value.strip()
    known = "write 'serial: N', 'serial: N-M', 'id: KEY_ID', 'key: PUBLIC_KEY', 'sha256: PUBLIC_KEY or SHA256:...'."
    if not colon or not value or "\n" in line:
        raise InvalidInput(f"{line!r} is not of the form 'KIND: VALUE'.", known)
    if kind == "serial":
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", value)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last < 2**64:
            raise InvalidInput(f"{line!r} is not a serial number, or a range of them, above 0.", known)
        return Revocation(f"serial: {first}" + (f"-{last}" if last > first else ""), serials=(first, last))
    if kind == "id":
        return Revocation(f"id: {value}", key_id=value)
    if kind in ("sha256", "hash") and value.startswith("SHA256:"):
        if not SHA256_FINGERPRINT.match(value):
            raise InvalidInput(f"{line!r} is not a fingerprint.", "copy it from the output of ssh-keygen -l.")
        return Revocation(f"hash: {value.rstrip('=')}", fingerprint=value.rstrip("="))
    if kind in ("key", "sha256", "sha1"):
        parts = value.split()
        if len(parts) < 2 or parts[0] not in PUBLIC_KEY_TYPES:
            raise InvalidInput(
                f"{line!r} holds no public key.",
                "give a line like 'ssh-ed25519 AAAA...' (for a certificate its serial).",
            )
        return Revocation(f"{kind}: {parts[0]} {parts[1]}", fingerprint=public_fingerprint(value))
    raise InvalidInput(f"{line!r} begins with the unknown kind {kind!r}.", known)


def read_revocations(lines: Iterable[str], authority: Authority) -> list[Revocation]:
    """Read the revocation list and refuse one that revokes the cluster's own authority."""
    entries = parse_revocations(lines)
    own = {authority.host.fingerprint: "host", authority.user.fingerprint: "user"}
    problems = [
        f"{entry.line!r} revokes the cluster's own {own[entry.fingerprint]} CA: nobody could log in any more."
        for entry in entries
        if entry.fingerprint in own
    ]
    if problems:
        raise InvalidInput(
            join_problems(problems), "to replace an authority, reset with ssh_mesh_wipe_authority and deploy again."
        )
    return entries


def retired_lines(directory: Path) -> list[str]:
    """Return the revocations of nodes that were removed from the cluster."""
    return [line for line in read_text(directory / RETIRED_NAME).splitlines() if line and not line.startswith("#")]


def retire(directory: Path, nodes: Iterable[str], now: int) -> list[str]:
    """Return these revocations with those of ``nodes``: all their certificates, the host's and the users', by serial.

    Serials and not key ids, so that a new machine may have the name. What has expired is left out.
    """
    names = set(nodes)
    kept = retired_lines(directory)
    if not names:
        return kept
    issued = [json.loads(line) for line in read_text(directory / ISSUED_NAME).splitlines() if line.strip()]
    alive = {f"serial: {entry['serial']}": entry for entry in issued if entry["valid_before"] > stamp(now)}
    return sorted(
        line for line, entry in alive.items() if line in kept or re.split("[@:]", entry["key_id"])[-1] in names
    )


def is_barred(request: CertificateRequest, revocations: Iterable[Revocation]) -> bool:
    """Tell whether any certificate with this key id is revoked, so that signing a new one would be of no use."""
    return any(entry.key_id == request.key_id for entry in revocations)


def spec_text(revocations: Iterable[Revocation], authority: Authority) -> str:
    """Return the KRL specification: its comments make it change with the authorities."""
    lines = [
        "# Managed by turnkey.hpc (role ssh_mesh): the list that revoked.krl was made of.",
        f"# host CA {authority.host.fingerprint}",
        f"# user CA {authority.user.fingerprint}",
        *(entry.line for entry in revocations),
    ]
    return "\n".join(lines) + "\n"


# --- the authority ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaKey:
    """The key of one authority."""

    kind: str
    private: Any = field(repr=False)
    public: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key."""
        return public_fingerprint(self.public)


@dataclass(frozen=True)
class Authority:
    """The pair of authorities of a cluster."""

    directory: Path
    host: CaKey
    user: CaKey


@dataclass
class AuthorityPlan:
    """What has to be done to the directory of the authority."""

    directory: Path
    make_directory: bool = False
    make_keys: list[str] = field(default_factory=list)
    write: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    make_krl: bool = False
    remove: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.make_directory or self.make_keys or self.write or self.make_krl or self.remove)

    def diff(self) -> list[dict[str, str]]:
        """Return the plan in the form of Ansible's diffs, with public texts only."""
        result = [
            {
                "before_header": str(self.directory / name),
                "after_header": str(self.directory / name),
                "before": self.before.get(name, ""),
                "after": text,
            }
            for name, text in self.write.items()
        ]
        prepared = [f"new {kind} CA key {self.directory / (kind + '_ca')}" for kind in self.make_keys]
        if self.make_krl:
            prepared.append(f"new revocation list {self.directory / KRL_NAME}")
        prepared += [f"remove {self.directory / name}" for name in self.remove]
        if prepared:
            result.append({"prepared": "\n".join(prepared) + "\n"})
        return result


def load_ca_key(kind: str, data: bytes, origin: str) -> CaKey:
    """Return the CA key in ``data``; ``origin`` says in errors where it came from."""
    require_cryptography()
    try:
        private = serialization.load_ssh_private_key(data, password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        # The library's messages never contain key material.
        raise HpcError(
            f"The {kind} CA key in {origin} can't be read: {error}",
            "put the right key there (OpenSSH format, no passphrase); a new one is never made in its place.",
        ) from error
    except TypeError as error:
        raise HpcError(
            f"The {kind} CA key in {origin} has a passphrase.", "give it without one, for example from Ansible Vault."
        ) from error
    if not isinstance(private, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise HpcError(f"The {kind} CA key in {origin} is of an unsupported type.", "use ed25519.")
    return CaKey(kind, private, public_line(private.public_key()))


def check_private(path: Path, mode: int, problems: list[str]) -> None:
    """Add a problem if ``path`` is open to others or isn't ours."""
    status = path.stat()
    what = "directory" if path.is_dir() else "file"
    if status.st_uid != os.geteuid():
        problems.append(f"The {what} {path} belongs to uid {status.st_uid}, not to you (uid {os.geteuid()}).")
    elif status.st_mode & 0o777 != mode:
        problems.append(
            f"The {what} {path} has mode {status.st_mode & 0o777:04o}, not {mode:04o}: others may know the CA keys. "
            f"Remedy: if nobody did, chmod {mode:04o} {path}; else make a new authority."
        )


def load_keys(directory: Path, given: dict[str, str]) -> dict[str, CaKey]:
    """Return the CA keys that exist, given or in files; all problems at once."""
    problems: list[str] = []
    keys: dict[str, CaKey] = {}
    if directory.exists():
        if not directory.is_dir():
            raise HpcError(f"{directory} is not a directory.", "move it away.")
        check_private(directory, 0o700, problems)
    for kind in KINDS:
        path = directory / f"{kind}_ca"
        try:
            if path.exists():
                check_private(path, 0o600, problems)
                keys[kind] = load_ca_key(kind, path.read_bytes(), str(path))
            if given.get(kind):
                key = load_ca_key(kind, given[kind].strip().encode() + b"\n", f"ssh_mesh_{kind}_ca_key")
                if kind in keys and keys[kind].public != key.public:
                    problems.append(f"{path} is another key than ssh_mesh_{kind}_ca_key. Remedy: remove one of them.")
                keys[kind] = key
            problems += check_public(path.with_suffix(".pub"), keys.get(kind), path)
        except OSError as error:
            problems.append(f"The {kind} CA key can't be read: {error}.")
        except HpcError as error:
            problems.append(str(error))
    if len(keys) == 2 and keys["host"].public == keys["user"].public:
        problems.append("The host CA and the user CA are the same key. Remedy: give two different ones.")
    if problems:
        raise HpcError(join_problems(problems))
    return keys


def check_public(path: Path, key: CaKey | None, private_path: Path) -> list[str]:
    """Return the problems of the public file beside a CA key."""
    if not path.exists():
        return []
    if key is None:
        return [
            f"{path} is there but its private key {private_path} is not. Remedy: bring the private key back, "
            "or remove the .pub file to have a new authority made."
        ]
    if path.read_text().split()[:2] != key.public.split()[:2]:
        return [f"{path} is of another key than the {key.kind} CA key. Remedy: put the right pair there."]
    return []


def load_authority(directory: Path, given: dict[str, str]) -> Authority | None:
    """Return the authority in ``directory``, or None if it wasn't made yet."""
    keys = load_keys(directory, given)
    if len(keys) < 2:
        return None
    return Authority(directory, keys["host"], keys["user"])


def read_text(path: Path) -> str:
    """Return the text of a file, empty if there is none."""
    return path.read_text() if path.exists() else ""


def known_hosts_text(authority: Authority, patterns: Sequence[str]) -> str:
    """Return the known_hosts file for people outside: it trusts the host CA for the cluster's names."""
    return f"@cert-authority {','.join(patterns)} {authority.host.public}\n" if patterns else ""


def plan_authority(
    directory: Path, given: dict[str, str], revoked: Iterable[str], patterns: Sequence[str]
) -> tuple[AuthorityPlan, Authority | None]:
    """Compare the directory with what is wanted. No authority is returned while one of its keys is missing."""
    plan = AuthorityPlan(directory, make_directory=not directory.exists())
    keys = load_keys(directory, given)
    revocations = parse_revocations(revoked)
    plan.make_keys = [kind for kind in KINDS if kind not in keys]
    if plan.make_keys:
        plan.make_krl = True
        return plan, None
    authority = Authority(directory, keys["host"], keys["user"])
    read_revocations(revoked, authority)
    wanted = {
        "host_ca.pub": authority.host.public + " host CA\n",
        "user_ca.pub": authority.user.public + " user CA\n",
        KNOWN_HOSTS_NAME: known_hosts_text(authority, patterns),
        SPEC_NAME: spec_text(revocations, authority),
    }
    plan.before = {name: read_text(directory / name) for name in wanted}
    plan.write = {name: text for name, text in wanted.items() if plan.before[name] != text}
    plan.make_krl = SPEC_NAME in plan.write or not (directory / KRL_NAME).exists()
    return plan, authority


def apply_authority(
    plan: AuthorityPlan, given: dict[str, str], revoked: Sequence[str], patterns: Sequence[str], run: Run
) -> Authority:
    """Do what is planned and return the authority."""
    directory = plan.directory
    if plan.make_directory:
        make_private_directory(directory)
    for kind in plan.make_keys:
        secret = ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        write_file(directory / f"{kind}_ca", secret, 0o600)
    follow_up, authority = plan_authority(directory, given, revoked, patterns)
    if authority is None:
        raise HpcError(f"The CA keys in {directory} can't be made.", "look at the directory's rights.")
    for name, text in follow_up.write.items():
        if name != SPEC_NAME:
            write_file(directory / name, text.encode(), 0o644)
    if follow_up.make_krl:
        make_krl(authority, spec_text(parse_revocations(revoked), authority), run)
    return authority


def make_private_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing, for nobody else to see."""
    if not path.exists():
        make_private_directory(path.parent)
        path.mkdir(mode=0o700)
        path.chmod(0o700)


def make_krl(authority: Authority, spec: str, run: Run) -> None:
    """Write the revocation list for both authorities; the specification last, so that a killed run does it again."""
    directory = authority.directory
    with tempfile.TemporaryDirectory(dir=directory, prefix=".krl-") as work:
        spec_path, krl_path = Path(work) / SPEC_NAME, Path(work) / KRL_NAME
        spec_path.write_text(spec)
        # Serials and ids belong to one authority: the second call adds them for the other one.
        for update, kind in (([], "host"), (["-u"], "user")):
            ca_path = directory / f"{kind}_ca.pub"
            argv = ["ssh-keygen", "-q", "-k", *update, "-f", str(krl_path), "-s", str(ca_path), str(spec_path)]
            code, out, err = run(argv)
            if code != 0:
                raise HpcError(f"ssh-keygen can't make the revocation list: {(err or out).strip()}")
        write_file(directory / KRL_NAME, krl_path.read_bytes(), 0o644)
    write_file(directory / SPEC_NAME, spec.encode(), 0o600)


def plan_wipe(directory: Path) -> AuthorityPlan:
    """Plan to remove the authority; files that aren't its own stay."""
    names = [f"{kind}_ca{suffix}" for kind in KINDS for suffix in ("", ".pub")]
    names += [KRL_NAME, SPEC_NAME, KNOWN_HOSTS_NAME, ISSUED_NAME, RETIRED_NAME]
    plan = AuthorityPlan(directory)
    plan.remove = [name for name in names if (directory / name).exists()]
    if directory.is_dir() and {path.name for path in directory.iterdir()} <= set(names):
        plan.remove.append("")
    return plan


def apply_wipe(plan: AuthorityPlan) -> None:
    """Remove what is planned."""
    for name in plan.remove:
        if name:
            (plan.directory / name).unlink()
        else:
            plan.directory.rmdir()


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that nobody ever sees half of it, or any of it with a wider mode."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def log_issued(directory: Path, certificates: Iterable[Certificate], now: int) -> None:
    """Append the certificates to the log of what was issued; hosts are worked on by several processes at once."""
    lines = [
        json.dumps(
            {
                "time": stamp(now),
                "serial": certificate.serial,
                "key_id": certificate.key_id,
                "type": certificate.kind,
                "principals": list(certificate.principals),
                "valid_before": stamp(certificate.valid_before),
            }
        )
        + "\n"
        for certificate in certificates
    ]
    if not lines:
        return
    handle = os.open(directory / ISSUED_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write("".join(lines))
        stream.flush()


# --- credentials ------------------------------------------------------------------------------------------------------


@dataclass
class Credential:
    """A key with a certificate for people or tests outside the cluster, and what has to be done to have it."""

    path: Path
    reasons: list[str] = field(default_factory=list)
    remove: list[Path] = field(default_factory=list)
    current: Certificate | None = None

    @property
    def paths(self) -> list[Path]:
        """The files of the credential: private key, public key, certificate."""
        return credential_paths(self.path)

    def __bool__(self) -> bool:
        return bool(self.reasons or self.remove)


def credential_paths(path: Path) -> list[Path]:
    """Return the files of a credential."""
    return [path, path.with_name(path.name + ".pub"), path.with_name(path.name + "-cert.pub")]


def credential_request(public_key: str, principals: Sequence[str], key_id: str, minutes: int) -> CertificateRequest:
    """Return the request for the certificate of a credential."""
    return CertificateRequest(
        kind="user",
        public_key=public_key,
        key_id=key_id,
        principals=tuple(principals),
        validity_seconds=minutes * 60,
        extensions=USER_EXTENSIONS,
    )


def plan_credential(
    path: Path, principals: Sequence[str], key_id: str, minutes: int, authority: Authority, now: int
) -> Credential:
    """Say why the credential has to be made anew: while it is valid for half its life, it stays."""
    problems = [
        f"{name!r} can't be a principal: give the name of an ordinary user of the cluster."
        for name in principals
        if name == "root" or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)
    ]
    if not principals:
        problems.append("A credential needs at least one principal.")
    if minutes < 1:
        problems.append(f"valid_minutes is {minutes}: it must be at least 1.")
    if problems:
        raise InvalidInput(join_problems(problems))
    revocations = parse_revocations(
        line for line in read_text(authority.directory / SPEC_NAME).splitlines() if not line.startswith("#")
    )
    if any(entry.key_id == key_id for entry in revocations):
        raise InvalidInput(
            f"The key id {key_id!r} is on the revocation list: a new certificate would be refused too.",
            "use another key_id, or take the entry from ssh_mesh_revoked.",
        )
    result = Credential(path)
    private, _public, certificate = result.paths
    if not private.exists():
        result.reasons = ["there is none"]
        return result
    if private.stat().st_mode & 0o077:
        result.reasons = ["others can read its key"]
        return result
    try:
        key = load_ca_key("user", private.read_bytes(), str(private))
    except HpcError:
        result.reasons = ["its key can't be read"]
        return result
    current = read_text(certificate)
    request = credential_request(key.public, principals, key_id, minutes)
    result.reasons = renewal_reasons(request, current, authority.user.fingerprint, now, minutes * 30, revocations)
    if not result.reasons:
        result.current = parse_certificate(current)
    return result


def apply_credential(
    plan: Credential, principals: Sequence[str], key_id: str, minutes: int, authority: Authority, now: int
) -> Certificate:
    """Make a new key and sign it: the certificate is written last."""
    private, public, certificate_path = plan.paths
    make_private_directory(private.parent)
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    line = public_line(key.public_key())
    certificate = sign(credential_request(line, principals, key_id, minutes), authority.user, now)
    log_issued(authority.directory, [certificate], now)
    write_file(private, secret, 0o600)
    write_file(public, f"{line} {key_id}\n".encode(), 0o600)
    write_file(certificate_path, certificate.text.encode(), 0o600)
    return certificate


def plan_credential_removal(path: Path) -> Credential:
    """Plan to remove the files of a credential."""
    return Credential(path, remove=[item for item in credential_paths(path) if item.exists()])
