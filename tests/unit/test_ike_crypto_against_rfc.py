"""IKE's key derivation and messages against published vectors, and what they must refuse."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import astuple

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateways.ike.crypto import (
    IKE_SUITES,
    DiffieHellman,
    IkeSuite,
    Protection,
    SessionKeys,
    intermediate_octets,
    nat_hash,
    prf,
    prf_plus,
)
from gateways.ike.payloads import Header, Payload, pack_payloads
from gateways.ike.ppk import keys_with_ppk
from topo.errors import ControlError

HEADER = Header(b"initiate", b"responds", 35, 8, 7)


def test_prf_against_rfc4231_case_2() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert prf(b"Jefe", b"what do ya want for nothing?").hex() == expected


def test_prf_plus_against_rfc5869_expand() -> None:
    """prf+ of RFC 7296 §2.13 is HKDF-Expand; RFC 5869 appendix A.1 and A.3 have it with SHA-256."""
    key = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert prf_plus(key, bytes(range(0xF0, 0xFA)), 42).hex() == okm
    key = bytes.fromhex("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04")
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert prf_plus(key, b"", 42).hex() == okm


def test_prf_plus_by_its_definition() -> None:
    key, seed = b"k" * 32, b"seed"
    first = prf(key, seed + b"\x01")
    second = prf(key, first + seed + b"\x02")
    third = prf(key, second + seed + b"\x03")
    assert prf_plus(key, seed, 80) == (first + second + third)[:80]


def test_x25519_against_rfc7748() -> None:
    """Section 6.1: Bob's keys, and a shared secret that both ends find."""
    alice = DiffieHellman(31)
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    bob = private.public_key().public_bytes_raw()
    assert bob.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert alice.shared(bob) == private.exchange(X25519PublicKey.from_public_bytes(alice.public))


@pytest.mark.parametrize("group", [19, 31])
def test_both_ends_agree(group: int) -> None:
    one, other = DiffieHellman(group), DiffieHellman(group)
    assert one.shared(other.public) == other.shared(one.public)
    assert len(one.shared(other.public)) == 32
    assert len(one.public) == {19: 64, 31: 32}[group]


@pytest.mark.parametrize(
    ("group", "public"),
    [(31, bytes(32)), (31, b"x" * 31), (19, bytes(64)), (19, b"x" * 63), (19, b""), (31, b"")],
)
def test_public_values_that_are_none(group: int, public: bytes) -> None:
    with pytest.raises(ControlError):
        DiffieHellman(group).shared(public)


def test_unknown_group() -> None:
    with pytest.raises(ControlError, match="method 14"):
        DiffieHellman(14)


@pytest.mark.parametrize("suite", IKE_SUITES, ids=lambda suite: suite.name)
def test_session_keys_are_cut_in_the_order_of_the_rfc(suite: IkeSuite) -> None:
    keys = SessionKeys.derive(suite, b"s" * 32, b"nonces and SPIs")
    joined = b"".join(astuple(keys))
    assert joined == prf_plus(b"s" * 32, b"nonces and SPIs", len(joined))
    assert [len(part) for part in astuple(keys)] == [
        32,
        *2 * [suite.integrity_octets],
        *2 * [suite.encryption_octets],
        32,
        32,
    ]
    assert suite.encryption_octets == {20: 4, 12: 0}[suite.encryption] + suite.key_bits // 8
    assert "b'" not in repr(keys)


def test_ppk_in_ike_auth_changes_three_keys_only() -> None:
    keys = SessionKeys.derive(IKE_SUITES[0], b"s" * 32, b"seed")
    mixed = keys.with_ppk(b"ppk" * 11)
    assert (mixed.ei, mixed.er, mixed.ai, mixed.ar) == (keys.ei, keys.er, keys.ai, keys.ar)
    assert mixed.d == prf_plus(b"ppk" * 11, keys.d, 32)
    assert mixed.pi == prf_plus(b"ppk" * 11, keys.pi, 32)
    assert mixed.pr == prf_plus(b"ppk" * 11, keys.pr, 32)


def test_ppk_in_ike_intermediate_changes_all() -> None:
    keys = SessionKeys.derive(IKE_SUITES[0], b"s" * 32, b"seed")
    mixed = keys_with_ppk(IKE_SUITES[0], keys, b"seed", b"p" * 32)
    for before, after in zip(astuple(keys), astuple(mixed), strict=True):
        assert before != after or not before


def ends(suite: IkeSuite) -> tuple[Protection, Protection]:
    keys = bytes(range(suite.encryption_octets)), bytes(range(suite.integrity_octets))
    return (
        Protection(suite, *keys, secrets.token_bytes),
        Protection(suite, *keys, secrets.token_bytes),
    )


@pytest.mark.parametrize("suite", IKE_SUITES, ids=lambda suite: suite.name)
def test_every_flipped_bit_is_noticed(suite: IkeSuite) -> None:
    sender, receiver = ends(suite)
    first, inner = pack_payloads([Payload(40, bytes(range(20))), Payload(41, bytes(4))])
    datagram = sender.seal(HEADER, first, inner)
    assert receiver.open(datagram) == (first, inner)
    for index in range(len(datagram)):
        for bit in range(8):
            forged = bytearray(datagram)
            forged[index] ^= 1 << bit
            with pytest.raises(ControlError):
                receiver.open(bytes(forged))
    for end in range(len(datagram)):
        with pytest.raises(ControlError):
            receiver.open(datagram[:end])


@pytest.mark.parametrize("suite", IKE_SUITES, ids=lambda suite: suite.name)
def test_lengths_from_none_to_many(suite: IkeSuite) -> None:
    sender, receiver = ends(suite)
    ivs = set()
    for octets in range(0, 70):
        datagram = sender.seal(HEADER, 41, bytes(octets))
        assert receiver.open(datagram) == (41, bytes(octets))
        assert int.from_bytes(datagram[24:28]) == len(datagram)
        ivs.add(datagram[32:40])
    assert len(ivs) == 70


def test_intermediate_octets_have_adjusted_lengths() -> None:
    """RFC 9242 §3.3.2: as if there were no IV, no padding and no ICV."""
    octets = intermediate_octets(HEADER, 41, b"inner")
    assert int.from_bytes(octets[24:28]) == len(octets) == 28 + 4 + 5
    assert octets[28:] == bytes((41, 0, 0, 9)) + b"inner"
    assert octets[16] == 46


def test_nat_hash_is_the_sha1_of_the_rfc() -> None:
    expected = hashlib.sha1(b"i" * 8 + b"r" * 8 + bytes((192, 0, 2, 1)) + b"\x11\x94").digest()
    assert nat_hash(b"i" * 8, b"r" * 8, bytes((192, 0, 2, 1)), 4500) == expected
