"""What a SQLite main file will be when its write-ahead log has been put into it.

The log is a header of 32 bytes and frames: a head of 24 bytes (page number, size of the database in
pages if the frame ends a transaction, else 0, salts, checksums), and the page
(https://www.sqlite.org/fileformat2.html#walformat). A checkpoint copies the last frame of each page
to its place and gives the file the size that the last transaction says; it may be cut short at any
byte and be done again. So this result does not depend on how much of it has been done already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_HEADER, _FRAME = struct.Struct("!8xI20x"), struct.Struct("!II16x")
_PIECE_BYTES = 1 << 20


def main_after_checkpoint(main: int, log: int, log_bytes: int) -> Iterator[bytes]:
    """The main file with the first `log_bytes` of the log in it, from front to end; files open for reading.

    They end with a transaction, as SQLite has left them. `struct.error` for a log that is cut short.
    """
    (page_bytes,) = _HEADER.unpack(os.pread(log, _HEADER.size, 0))
    in_log, pages = {}, 0
    for at in range(_HEADER.size, log_bytes, _FRAME.size + page_bytes):
        number, pages = _FRAME.unpack(os.pread(log, _FRAME.size, at))
        in_log[number - 1] = at + _FRAME.size
    at = 0
    for index in sorted(index for index in in_log if index < pages):
        yield from _pieces(main, at, index * page_bytes)
        yield from _pieces(log, in_log[index], in_log[index] + page_bytes)
        at = (index + 1) * page_bytes
    yield from _pieces(main, at, pages * page_bytes)


def _pieces(file: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes start … stop - 1 of a file; zeros where it has none yet."""
    while start < stop:
        size = min(_PIECE_BYTES, stop - start)
        yield os.pread(file, size, start).ljust(size, b"\0")
        start += size
