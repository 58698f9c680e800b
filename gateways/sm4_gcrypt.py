"""SM4-GCM of libgcrypt, by ctypes: OpenSSL's SM4 has no SIMD form on x86, libgcrypt's has three (AES-NI, AVX2, GFNI).

Debian's apt and gnupg depend on libgcrypt20, so it is on every Debian system. `load` trusts it with nothing before
it has reproduced RFC 8998 A.1; `gateways.suites` goes on with `cryptography` where it does not load.

A context lives as long as its SA: `gcry_cipher_setiv` starts GCM anew, key schedule and hash key stay. Tags are
compared by `gcry_cipher_checktag`, in constant time. Calls hold the GIL (`PyDLL`): they last a few µs, less than
giving it up and getting it back may.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import byref, c_char, c_int, c_size_t, c_void_p
from typing import Any

from cryptography.exceptions import InvalidTag

from topo.errors import FeatureMissing, QntnError

SONAME = "libgcrypt.so.20"
_OLDEST = b"1.9.0"
"""The first with SM4."""
_SM4, _GCM = 318, 9
_DISABLE_SECMEM, _INITIALIZATION_FINISHED, _INITIALIZATION_FINISHED_P = 37, 38, 39
_ERROR_CODE = 0xFFFF
_CHECKSUM = 10
"""GPG_ERR_CHECKSUM, the code of a tag that does not match; above the code is the error's source."""

_ROOM_OCTETS = 65536
"""More than any packet's plaintext."""
_ROOM = c_size_t(_ROOM_OCTETS)
_HEADER_OCTETS, _IV_OCTETS, _SALT_OCTETS, _TAG_OCTETS = 8, 8, 4, 16
_NONCE_OCTETS = _SALT_OCTETS + _IV_OCTETS
_HEADER, _NONCE, _TAG = c_size_t(_HEADER_OCTETS), c_size_t(_NONCE_OCTETS), c_size_t(_TAG_OCTETS)

Row = tuple[object, object, object, object, object, c_size_t]
"""Of one packet in place: references to nonce, header, plaintext, ciphertext, tag; octets of the plaintext."""


class Library:
    """libgcrypt's functions that are called for each packet; `version` as it calls itself."""

    def __init__(self, functions: ctypes.PyDLL, version: str) -> None:
        self.version = version
        self.open = functions.gcry_cipher_open
        self.setkey = functions.gcry_cipher_setkey
        self.setiv = functions.gcry_cipher_setiv
        self.authenticate = functions.gcry_cipher_authenticate
        self.encrypt = functions.gcry_cipher_encrypt
        self.decrypt = functions.gcry_cipher_decrypt
        self.gettag = functions.gcry_cipher_gettag
        self.checktag = functions.gcry_cipher_checktag
        self.close = functions.gcry_cipher_close
        self.close.restype = None
        self._strerror = functions.gcry_strerror
        self._strerror.restype = ctypes.c_char_p

    def failure(self, error: int) -> Exception:
        """What to raise for a call's return value that is not 0."""
        if error & _ERROR_CODE == _CHECKSUM:
            return InvalidTag()
        return QntnError(f"libgcrypt {self.version}: {self._strerror(error).decode()}")


class Sm4GcmGcrypt:
    """A `PacketCipher`: SM4-GCM in the shape of RFC 4106. Not for two threads at once, as every one of them.

    `erase`, or its end, closes the context, and libgcrypt wipes the key schedule. Raises `QntnError` where
    libgcrypt reports anything but a wrong tag.
    """

    __slots__ = ("_handle", "_library", "_out", "salt")

    def __init__(self, library: Library, key: bytes, salt: bytes) -> None:
        self._handle: c_void_p | None = None
        self._library = library
        self._out: Any = (c_char * (_ROOM_OCTETS + _TAG_OCTETS))()  # its slices are bytes
        self.salt = salt
        handle = c_void_p()
        if error := library.open(byref(handle), c_int(_SM4), c_int(_GCM), ctypes.c_uint(0)):
            raise library.failure(error)
        self._handle = handle
        if error := library.setkey(handle, key, c_size_t(len(key))):
            raise library.failure(error)

    def protect(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        handle, library, out = self._opened(), self._library, self._out
        iv, octets = counter.to_bytes(8), len(plaintext)
        size = c_size_t(octets)
        # libgcrypt refuses to write beyond `_ROOM`, so there is always room for the tag.
        error = (
            library.setiv(handle, self.salt + iv, _NONCE)
            or library.authenticate(handle, header, c_size_t(len(header)))
            or library.encrypt(handle, out, _ROOM, plaintext, size)
            or library.gettag(handle, byref(out, octets), _TAG)
        )
        if error:
            raise library.failure(error)
        sealed: bytes = out[: octets + _TAG_OCTETS]
        return header + iv + sealed

    def unprotect(self, packet: bytes) -> bytes:
        handle, library, out = self._opened(), self._library, self._out
        ciphertext = packet[16:-16]
        octets = len(ciphertext)
        error = (
            library.setiv(handle, self.salt + packet[8:16], _NONCE)
            or library.authenticate(handle, packet[:8], _HEADER)
            or library.decrypt(handle, out, _ROOM, ciphertext, c_size_t(octets))
            or library.checktag(handle, packet[-16:], _TAG)
        )
        if error:
            raise library.failure(error)
        plaintext: bytes = out[:octets]
        return plaintext

    def seal_rows(self, rows: Iterable[Row]) -> None:
        """Encrypt packets in place; nonces, headers and plaintexts are there already."""
        handle, library = self._opened(), self._library
        setiv, authenticate = library.setiv, library.authenticate
        encrypt, gettag = library.encrypt, library.gettag
        for nonce, header, plaintext, ciphertext, tag, size in rows:
            error = (
                setiv(handle, nonce, _NONCE)
                or authenticate(handle, header, _HEADER)
                or encrypt(handle, ciphertext, size, plaintext, size)
                or gettag(handle, tag, _TAG)
            )
            if error:
                raise library.failure(error)

    def open_rows(self, rows: Iterable[Row]) -> list[int]:
        """Decrypt packets in place; nonces are there already. Which rows did not verify."""
        handle, library = self._opened(), self._library
        setiv, authenticate = library.setiv, library.authenticate
        decrypt, checktag = library.decrypt, library.checktag
        wrong = []
        for number, (nonce, header, plaintext, ciphertext, tag, size) in enumerate(rows):
            error = (
                setiv(handle, nonce, _NONCE)
                or authenticate(handle, header, _HEADER)
                or decrypt(handle, plaintext, size, ciphertext, size)
                or checktag(handle, tag, _TAG)
            )
            if error:
                failure = library.failure(error)
                if not isinstance(failure, InvalidTag):
                    raise failure
                wrong.append(number)
        return wrong

    def erase(self) -> None:
        """Let go of the key. Nothing can be sealed or opened any more: that raises `ValueError`."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.close(handle)
            ctypes.memset(self._out, 0, len(self._out))

    def __del__(self) -> None:
        self.erase()

    def _opened(self) -> c_void_p:
        # A closed context must never reach libgcrypt: it follows the pointer.
        if self._handle is None:
            raise ValueError("the cipher was erased")
        return self._handle


def rows_of(
    nonces: memoryview, packets: memoryview, plaintexts: memoryview, octets: int, count: int
) -> tuple[Row, ...]:
    """The first `count` rows of ESP packets of `octets` each, back to back, and of their nonces and plaintexts.

    The references keep the memory they are into; the views must be writable. Raises `ValueError` for too few octets.
    """
    start = _HEADER_OCTETS + _IV_OCTETS
    plain = octets - start - _TAG_OCTETS
    nonce_at = (c_char * (count * _NONCE_OCTETS)).from_buffer(nonces)
    packet_at = (c_char * (count * octets)).from_buffer(packets)
    plaintext_at = (c_char * (count * plain)).from_buffer(plaintexts)
    size = c_size_t(plain)
    return tuple(
        (
            byref(nonce_at, row * _NONCE_OCTETS),
            byref(packet_at, row * octets),
            byref(plaintext_at, row * plain),
            byref(packet_at, row * octets + start),
            byref(packet_at, row * octets + start + plain),
            size,
        )
        for row in range(count)
    )


def load(name: str = SONAME) -> Library:
    """libgcrypt, ready for use. Raises `FeatureMissing`: not there, too old, no SM4, or a wrong result."""
    try:
        functions = ctypes.PyDLL(name)
    except OSError:
        raise _missing("not found") from None
    check_version: Any = functions.gcry_check_version
    check_version.restype = ctypes.c_char_p
    version = check_version(None).decode()  # this call initialises the library
    if check_version(_OLDEST) is None:
        raise _missing(f"{version} has no SM4")
    control = functions.gcry_control
    if not control(c_int(_INITIALIZATION_FINISHED_P), c_int(0)):
        control(c_int(_DISABLE_SECMEM), c_int(0))  # few and small pages: an SA must not fail for it
        control(c_int(_INITIALIZATION_FINISHED), c_int(0))
    library = Library(functions, version)
    try:
        right = _reproduces_rfc_8998(library)
    except QntnError as error:  # SM4 is left out of this build, or forbidden in FIPS mode
        raise _missing(str(error)) from error
    if not right:
        raise _missing(f"{version} does not reproduce RFC 8998 A.1")
    return library


def _missing(why: str) -> FeatureMissing:
    return FeatureMissing(f"libgcrypt with SM4-GCM ({SONAME}: {why})", "apt install libgcrypt20")


def _reproduces_rfc_8998(library: Library) -> bool:
    """Whether SM4-GCM gives what RFC 8998 A.1 says, and does not open it with a bit changed."""
    cipher = Sm4GcmGcrypt(
        library, bytes.fromhex("0123456789abcdeffedcba9876543210"), bytes.fromhex("00001234")
    )
    plaintext = b"".join(bytes((octet,)) * 8 for octet in bytes.fromhex("aabbccddeeffeeaa"))
    packet = cipher.protect(
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), 0x567800000000ABCD, plaintext
    )
    expected = bytes.fromhex(
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
        "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
        "83de3541e4c2b58177e065a9bf7b62ec"
    )
    if packet[28:] != expected:
        return False
    packet = cipher.protect(bytes(8), 1, plaintext)
    if cipher.unprotect(packet) != plaintext:
        return False
    try:
        cipher.unprotect(packet[:-1] + bytes((packet[-1] ^ 1,)))
    except InvalidTag:
        return True
    return False
