# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's authority for TLS certificates, and what it signs. Runs on the control node only."""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._state import write_atomically

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    CRYPTOGRAPHY_IMPORT_ERROR: str | None = None
except ImportError:  # told to the user by require_cryptography()
    CRYPTOGRAPHY_IMPORT_ERROR = traceback.format_exc()

__all__ = ["Authority", "load_authority", "make_authority", "renewal_reasons", "require_cryptography", "sign"]

AUTHORITY_DAYS = 3650
# A certificate begins in the past, for hosts whose clock is behind.
SKEW = datetime.timedelta(hours=1)


def require_cryptography() -> None:
    """Fail with a remedy where the library ``cryptography`` is missing."""
    if CRYPTOGRAPHY_IMPORT_ERROR is not None:
        raise HpcError(
            "The Python library cryptography is missing on the control node.",
            "install the requirements.txt of this collection into the Python that runs Ansible.",
        )


@dataclass(frozen=True)
class Authority:
    """Key and certificate of the authority."""

    key: Any
    certificate: Any

    @property
    def text(self) -> str:
        """The certificate as PEM."""
        return str(self.certificate.public_bytes(serialization.Encoding.PEM).decode())


def load_authority(directory: Path) -> Authority | None:
    """Return the authority in ``directory``, or None if there is none."""
    key, certificate = directory / "ca.key", directory / "ca.crt"
    if not key.exists() and not certificate.exists():
        return None
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        public = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise HpcError(
            f"The authority in {directory} can't be read ({error}).",
            "put both ca.key and ca.crt back, or move both away.",
        ) from error
    if private.public_key() != public.public_key():
        raise HpcError(f"ca.key and ca.crt in {directory} don't belong together.", "put back the ones that do.")
    return Authority(private, public)


def make_authority(directory: Path, name: str, now: datetime.datetime) -> Authority:
    """Return the authority in ``directory``, and make it if there is none. Hosts may ask at the same time."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = load_authority(directory)
        if found:
            return found
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} cluster authority")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(directory / "ca.key", private, 0o600)
        write_atomically(directory / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return Authority(key, certificate)


def builder(subject: Any, issuer: Any, key: Any, now: datetime.datetime, days: int) -> Any:
    """Return a certificate that has all but its extensions."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def usage(**granted: bool) -> Any:
    """Return a KeyUsage with only what is ``granted``."""
    names: tuple[str, ...] = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    )
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: granted.get(name, False) for name in names})


def alternative_names(names: Sequence[str]) -> list[Any]:
    """Return host names and addresses in the form of certificates."""
    result: list[Any] = []
    for name in dict.fromkeys(names):
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                result.append(x509.DNSName(name))
            except ValueError as error:
                raise InvalidInput(f"{name!r} is neither a host name nor an address ({error}).") from error
    return result


def public_key(text: str) -> Any:
    """Read a public key."""
    try:
        return serialization.load_pem_public_key(text.encode())
    except ValueError as error:
        raise InvalidInput(f"The host's public key can't be read ({error}).") from error


def sign(authority: Authority, key: str, names: Sequence[str], days: int, now: datetime.datetime) -> str:
    """Return a certificate of the host with the public ``key`` for ``names``, the first of which is its common name."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    issuer = authority.certificate
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    certificate = (
        builder(subject, issuer.subject, public_key(key), now, days)
        .add_extension(x509.SubjectAlternativeName(alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


def renewal_reasons(
    authority: Authority, text: str, key: str, names: Sequence[str], renew_days: int, now: datetime.datetime
) -> list[str]:
    """Return why the certificate ``text`` has to be signed anew; nothing if it is as it should be."""
    if not text.strip():
        return ["there is none"]
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
        found = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (ValueError, x509.ExtensionNotFound):
        return ["it can't be read"]
    reasons = []
    if certificate.public_key() != public_key(key):
        reasons.append("the host has another key")
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        reasons.append("another authority signed it")
    if set(found) != set(alternative_names(names)):
        reasons.append("the names differ")
    if certificate.not_valid_after_utc - now < datetime.timedelta(days=renew_days):
        reasons.append(f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d}")
    return reasons
