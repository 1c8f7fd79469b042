"""A certificate for one lease alone, and TLS contexts that trust the other side's and no other.

Each side makes a key and a certificate when a tunnel is agreed, and tells the certificate over a
stream whose ends are authenticated. The other side's is then the only trust anchor: no authority,
no names, no chain. The end of a lease closes what was opened with it; nothing else ends a
certificate, so no clock is asked whether it is still good.

TLS 1.3 alone: both certificates travel encrypted, so who looks on learns of no lease.
"""

from __future__ import annotations

import os
import secrets
import ssl
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..exceptions import RemoteProtocolError

# A certificate of ours has 500 bytes as PEM, and comes from the other side.
MAX_PEM_BYTES = 4096

# Before any clock, and RFC 5280's date for "no end" (section 4.1.2.5).
_BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class LeaseCertificate:
    """One side's key and certificate for one lease."""

    pem: str
    """The certificate, which the other side is told."""

    key: str = attrs.field(repr=False)
    """Its private key, as PEM; it stays in this machine's memory."""


def make_certificate() -> LeaseCertificate:
    """A new key of the curve P-256, and its certificate, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "punch lease")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        # It signs nothing but itself.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return LeaseCertificate(
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii"),
    )


def check_certificate(pem: str) -> bytes:
    """The one certificate of *pem*, which came from the other side, as DER.

    Raises:
      RemoteProtocolError: if it is none, or of a key that is not of P-256.

    """
    if len(pem) > MAX_PEM_BYTES:
        raise RemoteProtocolError(f"a certificate of {len(pem)} bytes; {MAX_PEM_BYTES} are allowed")
    try:
        (found,) = x509.load_pem_x509_certificates(pem.encode("ascii"))
        key = found.public_key()
    except (ValueError, TypeError):
        raise RemoteProtocolError("not one certificate in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise RemoteProtocolError("a certificate whose key is not of the curve P-256")
    return found.public_bytes(serialization.Encoding.DER)


def make_context(
    certificate: LeaseCertificate, trusted_pem: str, *, is_server: bool
) -> ssl.SSLContext:
    """A TLS context that shows *certificate* and accepts the one in *trusted_pem* alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trusted_pem)
    if is_server:
        # No connection is resumed: a ticket would outlast the lease.
        context.num_tickets = 0
    _load_key(context, certificate)
    return context


def _load_key(context: ssl.SSLContext, certificate: LeaseCertificate) -> None:
    """Give *context* the key; `ssl` takes files alone, and the key is to be in none."""
    if sys.platform == "win32":
        _load_encrypted(context, certificate)
        return
    ends: list[int] = []
    try:
        for text in (certificate.pem, certificate.key):
            reading, writing = os.pipe()
            ends.append(reading)
            # A pipe holds at least 4,096 bytes before a write waits for its reader.
            os.write(writing, text.encode("ascii"))
            os.close(writing)
        context.load_cert_chain(*(f"/dev/fd/{end}" for end in ends))
    finally:
        for end in ends:
            os.close(end)


def _load_encrypted(context: ssl.SSLContext, certificate: LeaseCertificate) -> None:
    """As `_load_key`, where a pipe has no name: the file has the key under a password unknown."""
    password = secrets.token_bytes(32)
    key = serialization.load_pem_private_key(certificate.key.encode("ascii"), password=None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    handle, name = tempfile.mkstemp(prefix="punch-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate.pem.encode("ascii") + sealed)
        context.load_cert_chain(name, password=password)
    finally:
        with suppress(OSError):
            Path(name).unlink()
