"""Our gateway with keys from a seed instead of a KMS: `python -m experiments.bench.gateway_peer CONFIG.json`.

For the benchmark only: which key an SA has makes no difference to its speed, and no KMS need run beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import uuid
from pathlib import Path

from gateways.config import load_config
from gateways.gateway import Gateway, harden
from topo.errors import QntnError


class SeededKeys:
    """The same key for the same key_ID at both ends, secret to nobody."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def fetch(self) -> tuple[str, bytes]:
        """A new key_ID and its key."""
        key_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{os.getpid()} {next(self._numbers)}"))
        return key_id, self.fetch_by_id(key_id)

    def fetch_by_id(self, key_id: str) -> bytes:
        """The key of a key_ID."""
        return hashlib.sha256(key_id.encode()).digest()


def main() -> int:
    """Run until SIGTERM."""
    try:
        config = load_config(Path(sys.argv[1]))
        harden()
        Gateway(config, SeededKeys(), offloads=True).run()
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
