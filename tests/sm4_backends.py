"""SM4-GCM by each library that the gateways may compute it with, whichever this machine would choose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateways import suites
from gateways.sm4_gcrypt import Sm4GcmGcrypt
from topo.errors import FeatureMissing

Maker = Callable[[bytes, bytes], suites.PacketCipher]
"""Makes a cipher of key and salt."""


def by_libgcrypt(key: bytes, salt: bytes) -> Sm4GcmGcrypt:
    """libgcrypt's; skips the test without libgcrypt."""
    library = suites.sm4_library()
    if isinstance(library, FeatureMissing):
        pytest.skip(str(library))
    return Sm4GcmGcrypt(library, key, salt)


MAKERS: dict[str, Maker] = {"cryptography": suites.Sm4Gcm16, "libgcrypt": by_libgcrypt}


def without_libgcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SM4-GCM computed as on a machine that has no libgcrypt."""
    lacking = FeatureMissing("libgcrypt", "this test does without")
    monkeypatch.setattr(suites, "sm4_library", lambda: lacking)
