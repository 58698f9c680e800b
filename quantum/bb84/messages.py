"""The classical messages of a block, as bytes: what the ground station and the satellite say.

A frame is its kind (1 byte), the length of its body (4 bytes) and the body; integers are big-endian.
The ground station asks and the satellite answers, so that questions are round trips::

    ground -> satellite          satellite -> ground         stage
    clicks, bases                kept, intensities           sifting
    parity questions             parity answers              error correction (many times, each basis)
    basis corrected              hash key and tag            error correction (once a basis)
    errors by intensity          Toeplitz seeds              privacy amplification
    tag of the transcript        tag of the transcript       authentication
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantum.bb84 import bitcoding
from quantum.bb84.bitcoding import Reader
from quantum.bb84.detections import Bits, Indices
from quantum.bb84.source import BASES
from quantum.bb84.verification import HashKey
from topo.errors import ProtocolError

HEADER = struct.Struct(">BI")

Place = Literal["ground", "satellite"]


class Kind(IntEnum):
    """What a frame holds; odd from the ground, even from the satellite."""

    CLICKS = 1
    KEPT = 2
    PARITY_QUESTIONS = 3
    PARITY_ANSWERS = 4
    CORRECTED = 5
    VERIFICATION = 6
    ERRORS = 7
    TOEPLITZ_SEEDS = 8
    GROUND_TAG = 9
    SATELLITE_TAG = 10

    @property
    def source(self) -> Place:
        """Who sends it."""
        return "ground" if self % 2 else "satellite"

    @property
    def label(self) -> str:
        """Its name in reports."""
        return _LABELS[self][0]

    @property
    def stage(self) -> str:
        """The part of the post-processing it belongs to."""
        return _LABELS[self][1]


_LABELS = {
    Kind.CLICKS: ("clicks and bases", "sifting"),
    Kind.KEPT: ("kept and intensities", "sifting"),
    Kind.PARITY_QUESTIONS: ("parity questions", "error correction"),
    Kind.PARITY_ANSWERS: ("parity answers", "error correction"),
    Kind.CORRECTED: ("basis corrected", "error correction"),
    Kind.VERIFICATION: ("verification key and tag", "error correction"),
    Kind.ERRORS: ("errors by intensity", "privacy amplification"),
    Kind.TOEPLITZ_SEEDS: ("Toeplitz seeds", "privacy amplification"),
    Kind.GROUND_TAG: ("ground's tag", "authentication"),
    Kind.SATELLITE_TAG: ("satellite's tag", "authentication"),
}


class Message(ABC):
    """What can be sent."""

    kind: ClassVar[Kind]

    @abstractmethod
    def encode(self) -> bytes:
        """The body."""

    @classmethod
    @abstractmethod
    def decode(cls, body: Reader) -> Self:
        """The message of a body. Raises `ProtocolError` for one that cannot be."""


M = TypeVar("M", bound=Message)


def to_frame(message: Message) -> bytes:
    """A message as it goes out."""
    body = message.encode()
    return HEADER.pack(message.kind, len(body)) + body


def kind_of(frame: bytes) -> Kind:
    """What a frame holds. Raises `ProtocolError` for a frame of no kind or of a wrong length."""
    if len(frame) < HEADER.size:
        raise ProtocolError(f"a frame of {len(frame)} bytes: its header alone has {HEADER.size}")
    number, size = HEADER.unpack_from(frame)
    if number not in set(Kind):
        raise ProtocolError(f"a message of kind {number}: there is none")
    if size != len(frame) - HEADER.size:
        raise ProtocolError(
            f"a message says it has {size} bytes and has {len(frame) - HEADER.size}"
        )
    return Kind(number)


def from_frame(frame: bytes, expected: type[M]) -> M:
    """The message in a frame. Raises `ProtocolError` when it is not one of the expected type."""
    kind = kind_of(frame)
    if kind is not expected.kind:
        raise ProtocolError(f"{kind.label!r} came where {expected.kind.label!r} was due")
    body = Reader(frame[HEADER.size :])
    message = expected.decode(body)
    body.end()
    return message


def _basis(number: int) -> str:
    if number >= len(BASES):
        raise ProtocolError(f"basis {number}: there are {len(BASES)}")
    return BASES[number]


@dataclass(frozen=True, eq=False)
class Clicks(Message):
    """Clicked pulses and measured bases, shape (detections,) each."""

    kind = Kind.CLICKS

    pulse_index: Indices
    basis: Bits

    def encode(self) -> bytes:
        """Rice-coded pulse numbers, then one bit a basis."""
        return bitcoding.rice_coded(self.pulse_index) + bitcoding.packed(self.basis)

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        pulse_index = body.positions()
        return cls(pulse_index, body.bits(len(pulse_index)))


@dataclass(frozen=True, eq=False)
class Kept(Message):
    """Which clicks are kept, at which intensity, and how to shuffle each basis."""

    kind = Kind.KEPT

    kept: NDArray[np.bool_]
    """Shape (detections,)."""
    intensity: Bits
    """Shape (kept,)."""
    shuffle_seeds: tuple[int, ...]
    """One 64-bit seed a basis."""

    def encode(self) -> bytes:
        """The seeds, one bit a click, two bits a kept click."""
        return (
            struct.pack(f">{len(BASES)}QI", *self.shuffle_seeds, len(self.kept))
            + bitcoding.packed(self.kept)
            + bitcoding.packed_integers(self.intensity, 2)
        )

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        seeds = tuple(body.number(8) for _ in BASES)
        kept = body.bits(body.number(4)).astype(np.bool_)
        intensity = body.integers(int(np.count_nonzero(kept)), 2).astype(np.uint8)
        return cls(kept, intensity, seeds)


@dataclass(frozen=True, eq=False)
class ParityQuestions(Message):
    """Cascade: the parities of these prefixes of a basis, in the order of a pass?"""

    kind = Kind.PARITY_QUESTIONS

    basis: str
    pass_number: int
    positions: Indices
    """Ascending."""

    def encode(self) -> bytes:
        """The basis, the pass, the Rice-coded positions."""
        head = struct.pack(">BH", BASES.index(self.basis), self.pass_number)
        return head + bitcoding.rice_coded(self.positions)

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        return cls(_basis(body.number(1)), body.number(2), body.positions())


@dataclass(frozen=True, eq=False)
class ParityAnswers(Message):
    """One parity a question, in the same order; shape (questions,)."""

    kind = Kind.PARITY_ANSWERS

    parities: Bits

    def encode(self) -> bytes:
        """Their number, and the parities packed."""
        return struct.pack(">I", len(self.parities)) + bitcoding.packed(self.parities)

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        return cls(body.bits(body.number(4)))


@dataclass(frozen=True)
class Corrected(Message):
    """The ground station believes its bits of a basis to be right."""

    kind = Kind.CORRECTED

    basis: str

    def encode(self) -> bytes:
        """The basis."""
        return bytes([BASES.index(self.basis)])

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        return cls(_basis(body.number(1)))


@dataclass(frozen=True)
class Verification(Message):
    """A fresh hash key, and the tag of the satellite's bits of a basis under it."""

    kind = Kind.VERIFICATION

    key: HashKey
    tag: int

    def encode(self) -> bytes:
        """Four integers of 16 bytes."""
        numbers = (self.key.point, self.key.factor, self.key.offset, self.tag)
        return b"".join(number.to_bytes(16, "big") for number in numbers)

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        point, factor, offset, tag = (body.number(16) for _ in range(4))
        return cls(HashKey(point, factor, offset), tag)


@dataclass(frozen=True, eq=False)
class Errors(Message):
    """How many errors were corrected, shape (bases, K): by basis and intensity."""

    kind = Kind.ERRORS

    errors: Indices

    def encode(self) -> bytes:
        """The number of intensities, and four bytes an error count."""
        return bytes([self.errors.shape[1]]) + self.errors.astype(">u4").tobytes()

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        shape = (len(BASES), body.number(1))
        numbers = np.frombuffer(body.take(4 * shape[0] * shape[1]), ">u4")
        return cls(numbers.reshape(shape).astype(np.int64))


@dataclass(frozen=True, eq=False)
class ToeplitzSeeds(Message):
    """The random bits that define each basis's Toeplitz matrix; none for a basis without key."""

    kind = Kind.TOEPLITZ_SEEDS

    seeds: tuple[Bits, ...]

    def encode(self) -> bytes:
        """For each basis the number of bits, and the bits packed."""
        return b"".join(
            struct.pack(">I", len(seed)) + bitcoding.packed(seed) for seed in self.seeds
        )

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        return cls(tuple(body.bits(body.number(4)) for _ in BASES))


@dataclass(frozen=True)
class GroundTag(Message):
    """The ground station's tag of the transcript."""

    kind = Kind.GROUND_TAG

    tag: bytes

    def encode(self) -> bytes:
        """The tag."""
        return self.tag

    @classmethod
    def decode(cls, body: Reader) -> Self:
        """From a body."""
        return cls(bytes(body.take(16)))


@dataclass(frozen=True)
class SatelliteTag(GroundTag):
    """The satellite's tag of the transcript."""

    kind = Kind.SATELLITE_TAG
