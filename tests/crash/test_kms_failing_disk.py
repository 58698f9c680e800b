"""A disk that fails once, at each write and fsync in turn: nothing that was promised is lost.

A small C library stands before libc's calls and fails one of them, of those on the ledger's files.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int countdown = 0;
static int seen = 0;

void fail_at(int call) { countdown = call; seen = 0; }
int calls_seen(void) { return seen; }

static int fails(int file)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/ledger")) return 0;
    seen++;
    if (countdown == 0 || --countdown > 0) return 0;
    errno = EIO;
    return 1;
}

#define WRAP(result, name, parameters, arguments)                              \
    result name parameters                                                     \
    {                                                                          \
        static result (*real) parameters;                                      \
        if (!real) real = (result (*) parameters) dlsym(RTLD_NEXT, #name);     \
        return fails(file) ? -1 : real arguments;                              \
    }

WRAP(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
WRAP(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
WRAP(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
WRAP(int, fsync, (int file), (file))
WRAP(int, fdatasync, (int file), (file))
WRAP(int, ftruncate, (int file, off_t size), (file, size))
WRAP(int, ftruncate64, (int file, off64_t size), (file, size))
"""

WORK = """
import ctypes, shutil, sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from kms.ledger import Ledger
from kms.places import PoolExhausted
from topo.errors import LedgerError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
shim = ctypes.CDLL(None)
root, step = Path(sys.argv[1]), int(sys.argv[2])

def use(path):
    '''Deliver as far as the disk lets us; try again after each failure.'''
    told, failures = [], 0
    try:
        with Ledger(path) as ledger:
            for request in range(6):
                try:
                    told += ledger.take("a", "b", 256, 4, NOW)
                    if request == 3:
                        ledger.stock.checkpoint()
                except LedgerError:
                    failures += 1
    except LedgerError:
        failures += 1
    return told, failures

call = 0
while True:
    call += step
    path = root / f"{call}" / "ledger"
    path.parent.mkdir()
    with Ledger.create(path, "U") as ledger:
        ledger.add_block(1, Random(1).randbytes(4000), "", NOW)
    shim.fail_at(call)
    told, failures = use(path)
    reached = shim.calls_seen() >= call
    shim.fail_at(0)
    told += use(path)[0]
    with Ledger(path) as ledger:
        while True:
            try:
                told += ledger.take("a", "b", 256, 1, NOW)
            except PoolExhausted:
                break
        taken = ledger.consumption().taken_keys
    names = [name for name, _ in told]
    lost = taken - len(told)
    print(call, int(reached), failures, len(names) - len(set(names)), lost, flush=True)
    shutil.rmtree(path.parent)
    if not reached:
        break
"""


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
def test_k4_each_write_and_fsync_fails_once(tmp_path: Path, step: int) -> None:
    shim = tmp_path / "shim.so"
    source = tmp_path / "shim.c"
    source.write_text(SHIM)
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    except FileNotFoundError:
        pytest.skip("gcc is missing: apt install build-essential")
    stores = tmp_path / "stores"
    stores.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", WORK, stores, str(step)],
        env={"LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = [[int(word) for word in line.split()] for line in ran.stdout.splitlines()]
    *reached, last = rows
    assert len(reached) > 40 // step
    assert last[1:] == [0, 0, 0, 0], "with a good disk nothing fails"
    for call, was_reached, failures, twice, lost in reached:
        assert was_reached == 1
        assert failures > 0, f"call {call} failed and nobody was told"
        assert twice == 0, f"call {call} failed: a key was delivered twice"
        assert 0 <= lost <= 4, f"call {call} failed: more than one request's keys are lost"
