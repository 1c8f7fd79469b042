"""Certificates of a lease: whom each side accepts, and what is no certificate."""

from __future__ import annotations

import ssl

import pytest

from punch.exceptions import RemoteProtocolError
from punch.tunnels import LeaseCertificate, check_certificate, make_certificate
from punch.tunnels._certificates import make_context


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """The version that both agree on after they have exchanged a byte each; both in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    todo = [near.do_handshake, far.do_handshake]
    for _ in range(10):
        for step in list(todo):
            try:
                step()
                todo.remove(step)
            except ssl.SSLWantReadError:
                pass
    assert not todo
    far.write(b"!")
    assert near.read(1) == b"!"
    return near.version()


def test_the_two_sides_of_a_lease_accept_each_other() -> None:
    """Over TLS 1.3, with nothing but each other's certificate."""
    near, far = make_certificate(), make_certificate()
    version = shake(
        make_context(near, far.pem, is_server=False), make_context(far, near.pem, is_server=True)
    )
    assert version == "TLSv1.3"


@pytest.mark.parametrize("wrong", ["client", "server", "none"])
def test_whoever_has_another_certificate_is_refused(wrong: str) -> None:
    """A client of another lease, a server of another, a client that shows none."""
    near, far, other = (make_certificate() for _ in range(3))
    client = make_context(other if wrong == "client" else near, far.pem, is_server=False)
    server = make_context(other if wrong == "server" else far, near.pem, is_server=True)
    if wrong == "none":
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(cadata=far.pem)
    with pytest.raises(ssl.SSLError):
        shake(client, server)


def test_an_older_tls_is_refused() -> None:
    """It would show both certificates to who looks on."""
    near, far = make_certificate(), make_certificate()
    client = make_context(near, far.pem, is_server=False)
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(client, make_context(far, near.pem, is_server=True))


def test_a_key_is_in_no_text_of_its_certificate() -> None:
    """What is logged by accident has none."""
    certificate = make_certificate()
    assert "PRIVATE" not in repr(certificate)
    assert "PRIVATE" in certificate.key
    assert "PRIVATE" not in certificate.pem


@pytest.mark.parametrize(
    "text",
    ["", "no", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ü", "A" * 5000],
)
def test_what_the_other_side_says_is_one_certificate_or_a_protocol_error(text: str) -> None:
    """Nothing else is raised."""
    with pytest.raises(RemoteProtocolError):
        check_certificate(text)


def test_two_certificates_are_not_one() -> None:
    """Each of them would be trusted."""
    with pytest.raises(RemoteProtocolError):
        check_certificate(make_certificate().pem + make_certificate().pem)


def test_each_lease_has_a_key_of_its_own() -> None:
    """So that the certificate of one is good for no other."""
    found: list[LeaseCertificate] = [make_certificate() for _ in range(3)]
    assert len({each.key for each in found}) == len({each.pem for each in found}) == 3
