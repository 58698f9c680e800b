"""SM4-GCM by libgcrypt against the same by `cryptography`, alone and in batches; and what is done without libgcrypt."""

from __future__ import annotations

import random

import pytest
from cryptography.exceptions import InvalidTag

from gateways import sm4_gcrypt, suites
from gateways.fast.batch import MAX_ROWS, Batch
from gateways.suites import SM4_128_GCM, Sm4Gcm16
from tests.batch_tunnel import Tunnel, super_packet
from tests.esp_packets import SPI
from tests.sm4_backends import MAKERS, Maker, by_libgcrypt, without_libgcrypt
from topo.errors import FeatureMissing, QntnError

KEY, SALT = bytes(range(16)), b"salt"

each_pair = pytest.mark.parametrize(
    ("ours", "theirs"),
    [(MAKERS["libgcrypt"], MAKERS["cryptography"]), (MAKERS["cryptography"], MAKERS["libgcrypt"])],
    ids=["libgcrypt seals", "cryptography seals"],
)


def test_every_length_is_sealed_and_opened_as_by_openssl() -> None:
    rng = random.Random(1)
    one, other = by_libgcrypt(KEY, SALT), Sm4Gcm16(KEY, SALT)
    for octets in (*range(600), *(rng.randrange(600, 9000) for _ in range(100)), 65_507):
        header, counter, plaintext = rng.randbytes(8), rng.getrandbits(64), rng.randbytes(octets)
        packet = one.protect(header, counter, plaintext)
        assert packet == other.protect(header, counter, plaintext)
        assert one.unprotect(packet) == plaintext


def test_not_a_bit_of_a_packet_may_change() -> None:
    cipher = by_libgcrypt(KEY, SALT)
    packet = cipher.protect(bytes(8), 1, bytes(40))
    for bit in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidTag):
            cipher.unprotect(bytes(changed))
    assert cipher.unprotect(packet) == bytes(40)


def test_what_libgcrypt_refuses_is_said_and_nothing_is_written_beyond_the_buffer() -> None:
    cipher = by_libgcrypt(KEY, SALT)
    with pytest.raises(QntnError, match=r"libgcrypt .*too short"):
        cipher.protect(bytes(8), 1, bytes(65_537))
    with pytest.raises(QntnError, match=r"libgcrypt .*[Kk]ey length"):
        by_libgcrypt(KEY[1:], SALT)
    assert cipher.unprotect(cipher.protect(bytes(8), 2, bytes(4))) == bytes(4)


def test_an_erased_cipher_does_nothing_more() -> None:
    cipher = by_libgcrypt(KEY, SALT)
    packet = cipher.protect(bytes(8), 1, bytes(4))
    cipher.erase()
    cipher.erase()
    with pytest.raises(ValueError, match="erased"):
        cipher.protect(bytes(8), 2, bytes(4))
    with pytest.raises(ValueError, match="erased"):
        cipher.unprotect(packet)
    with pytest.raises(ValueError, match="erased"):
        cipher.seal_rows([])
    with pytest.raises(ValueError, match="erased"):
        cipher.open_rows([])


@each_pair
@pytest.mark.parametrize("octets", [36, 96, 1432, 9000])
def test_a_batch_of_one_library_is_opened_by_the_other(
    ours: Maker, theirs: Maker, octets: int
) -> None:
    rng = random.Random(octets)
    sender, receiver = ours(KEY, SALT), theirs(KEY, SALT)
    out, into = Batch(), Batch()
    layout = out.layout(octets, SM4_128_GCM)
    count = min(layout.capacity, MAX_ROWS)
    plaintexts = [rng.randbytes(octets - SM4_128_GCM.overhead) for _ in range(count)]
    for row, plaintext in zip(layout.plaintexts, plaintexts, strict=True):
        row[:] = plaintext
    out.seal(sender, SPI, range(5, 5 + count), layout)
    for number, row in enumerate(layout.packets, 5):
        header = SPI.to_bytes(4) + number.to_bytes(4)
        assert bytes(row) == receiver.protect(header, number, plaintexts[number - 5])
    into.esp[: count * octets] = out.esp[: count * octets]
    wrong = sorted(rng.sample(range(count), count // 4))
    for at in wrong:
        into.esp[at * octets + rng.randrange(octets)] ^= 1 << rng.randrange(8)
    opened = into.layout(octets, SM4_128_GCM)
    assert into.open(receiver, count, opened) == wrong
    for at in set(range(count)) - set(wrong):
        assert bytes(opened.plaintexts[at]) == plaintexts[at]


def test_two_sas_take_turns_in_one_batch() -> None:
    ciphers = [by_libgcrypt(KEY, SALT), by_libgcrypt(KEY[::-1], b"tlas")]
    batch = Batch()
    layout = batch.layout(132, SM4_128_GCM)
    for cipher in ciphers * 2:
        layout.plaintexts[0][:] = bytes(100)
        batch.seal(cipher, SPI, range(1, 2), layout)
        assert cipher.unprotect(bytes(layout.packets[0])) == bytes(100)


def test_without_libgcrypt_cryptography_carries_the_packets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_libgcrypt(monkeypatch)
    assert isinstance(SM4_128_GCM.cipher(bytes(20)), Sm4Gcm16)
    assert SM4_128_GCM.library == suites.sm4_backend()
    assert suites.sm4_backend() == "cryptography (missing: libgcrypt. this test does without)"
    with Tunnel(SM4_128_GCM) as tunnel:
        tunnel.seal([super_packet(random.Random(1), 1300, 20_000)])
        assert tunnel.open()
    assert tunnel.core.receiver.counters.packets == 16


def test_a_library_that_is_not_there_is_named_with_the_remedy() -> None:
    with pytest.raises(FeatureMissing, match=r"not found.*apt install libgcrypt20"):
        sm4_gcrypt.load("libgcrypt.so.0")


def test_a_library_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_libgcrypt(KEY, SALT)
    monkeypatch.setattr(sm4_gcrypt, "_SM4", 7)  # AES-128
    with pytest.raises(FeatureMissing, match="does not reproduce RFC 8998"):
        sm4_gcrypt.load()


def test_a_library_without_sm4_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    by_libgcrypt(KEY, SALT)
    monkeypatch.setattr(sm4_gcrypt, "_SM4", 9999)
    with pytest.raises(FeatureMissing, match="algorithm"):
        sm4_gcrypt.load()
