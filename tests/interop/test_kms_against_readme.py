"""The README's section on the KMS alone: its commands as they stand there, in a network namespace of their own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
HEADING = "## Key management on its own"
UNSHARE = ("unshare", "--map-root-user", "--net")
TIMEOUT_S = 120


def namespaces_work() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare"),
    pytest.mark.skipif(not namespaces_work(), reason="needs network namespaces"),
]


def commands() -> list[str]:
    """The lines after `$` in the section's console blocks."""
    text = README.read_text(encoding="utf-8")
    assert HEADING in text, f"README.md has no section {HEADING!r}"
    section = text.split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def container(said: str) -> dict[str, Any]:
    """The JSON among what a command said (a KME in the background may say READY meanwhile)."""
    [line] = [line for line in said.splitlines() if line.startswith("{")]
    return json.loads(line)  # type: ignore[no-any-return]


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    lines, ports = commands(), iter((8443, 8444))
    assert len([line for line in lines if line.startswith("qntn kms serve")]) == 2
    script = ["ip link set lo up", f'PATH="{Path(sys.executable).parent}:$PATH"']
    for line in lines:
        script.append(f"echo '=== '\n{line}")
        if line.endswith("&"):  # a person would see READY
            script.append(f"until (: </dev/tcp/localhost/{next(ports)}) 2>/dev/null; do :; done")
    script.append("kill %1 %2; wait")
    done = subprocess.run(
        [*UNSHARE, "bash", "-euc", "\n".join(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    said = dict(zip(lines, done.stdout.split("=== \n")[1:], strict=True))
    [got] = [said[line] for line in lines if "enc_keys" in line]
    [fetched] = [said[line] for line in lines if "dec_keys" in line]
    assert len(container(got)["keys"]) == 1
    assert container(fetched) == container(got)
    [status] = [said[line] for line in lines if line.startswith("qntn kms status")]
    assert "KME-U for EG-U -> EG-N at KME-N" in status
    assert "exhausted  in" in status
    [metrics] = [said[line] for line in lines if "metrics" in line]
    states = "delivered", "destroyed"  # the latter if the sites have told each other meanwhile
    left = [f'qntn_kms_pool_bits{{direction="own",state="{state}"}} 256.0' for state in states]
    assert sum(line in metrics for line in left) == 1
