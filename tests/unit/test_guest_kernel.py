"""The build of the guest kernel, with a source of one line and a `make` that does next to nothing."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from topo.errors import FeatureMissing, SubstrateError
from topo.substrates import kernel

FAKE_MAKE = """\
#!/bin/sh
case "$*" in
*olddefconfig*) grep -v CONFIG_REFUSED .config > new; mv new .config ;;
*) echo "  CC      a.o"; echo "  CC      b.o"; echo "  LD      linux"; cat source > linux ;;
esac
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with such a source, two patches for it, a configuration, and the tools."""
    tree = tmp_path / "linux-source-6.1"
    tree.mkdir()
    (tree / "source").write_text("old\n")
    with tarfile.open(tmp_path / "linux-source-6.1.tar.xz", "w:xz") as tarball:
        tarball.add(tree, tree.name)
    for patch, (old, new) in (("patch", ("old", "new")), ("further", ("new", "newer"))):
        (tmp_path / patch).write_text(f"--- a/source\n+++ b/source\n@@ -1 +1 @@\n-{old}\n+{new}\n")
    (tmp_path / "config").write_text("# chosen\nCONFIG_NET=y\nCONFIG_HZ=100\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in (("make", FAKE_MAKE), ("strip", '#!/bin/sh\necho stripped >> "$1"\n')):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel, "SOURCES", tmp_path)
    monkeypatch.setattr(kernel, "CONFIG", tmp_path / "config")
    monkeypatch.setattr(kernel, "PATCHES", (tmp_path / "patch", tmp_path / "further"))
    return tmp_path


def test_a_kernel_is_patched_built_and_kept(workshop: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    with pytest.raises(FeatureMissing, match="make kernel"):
        kernel.find_kernel()
    built = kernel.build(lambda *step: steps.append(step))
    assert built == kernel.kernel_path() == kernel.find_kernel()
    assert built.read_text() == "newer\nstripped\n"
    assert built.is_relative_to(workshop / "cache/qntn/uml")
    done, total = [s[0] for s in steps], {s[1] for s in steps}
    assert done == sorted(done)
    assert {done[0], *total} == {0, done[-1]}
    assert {p.name for p in built.parent.iterdir()} == {"linux", "lock", "build.log"}

    steps.clear()
    (workshop / "linux-source-6.1.tar.xz").unlink()
    assert kernel.build(lambda *step: steps.append(step)) == built
    assert steps == []


@pytest.mark.parametrize("changed", ["config", "patch", "further"])
def test_another_configuration_or_patch_is_another_kernel(workshop: Path, changed: str) -> None:
    before = kernel.kernel_path()
    assert kernel.kernel_path() == before
    (workshop / changed).write_text((workshop / changed).read_text() + "\n")
    assert kernel.kernel_path() != before


def test_another_source_package_is_another_kernel(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kernel.kernel_path()
    monkeypatch.setattr(kernel, "SOURCE_PACKAGE", "linux-source-6.12")
    assert kernel.kernel_path() != before


def test_a_byte_moved_from_configuration_to_patch_is_another_kernel(workshop: Path) -> None:
    before = kernel.kernel_path()
    config, patch = (workshop / "config").read_text(), (workshop / "patch").read_text()
    (workshop / "config").write_text(config[:-1])
    (workshop / "patch").write_text(config[-1] + patch)
    assert kernel.kernel_path() != before


def test_without_the_source_the_apt_command_is_named(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.source_tarball() == workshop / "linux-source-6.1.tar.xz"
    monkeypatch.setattr(kernel, "SOURCES", workshop / "nowhere")
    with pytest.raises(FeatureMissing) as missing:
        kernel.source_tarball()
    assert "apt-get install linux-source-6.1 flex bison bc" in missing.value.remedy
    assert "linux-source-6.1.tar.xz" in missing.value.feature


def failed_build(workshop: Path, error: type[Exception]) -> str:
    """Build in vain; the error's text. No half-built kernel and no scratch folder may be left."""
    with pytest.raises(error) as failed:
        kernel.build(lambda *step: None)
    assert {p.name for p in kernel.kernel_path().parent.iterdir()} <= {"lock", "build.log"}
    return str(failed.value)


def test_an_option_that_the_source_does_not_take_stops_the_build(workshop: Path) -> None:
    (workshop / "config").write_text("CONFIG_NET=y\nCONFIG_REFUSED=y\n")
    assert "does not take CONFIG_REFUSED=y" in failed_build(workshop, SubstrateError)


def test_an_option_with_another_value_stops_the_build(workshop: Path) -> None:
    make = workshop / "bin/make"
    make.write_text(FAKE_MAKE.replace("grep -v CONFIG_REFUSED", "sed s/HZ=100/HZ=1000/"))
    assert "does not take CONFIG_HZ=100" in failed_build(workshop, SubstrateError)


def test_a_compiler_error_is_in_the_log(workshop: Path) -> None:
    make = workshop / "bin/make"
    make.write_text(FAKE_MAKE.replace("cat source > linux", "echo oh no; exit 2"))
    message = failed_build(workshop, SubstrateError)
    log = kernel.kernel_path().parent / "build.log"
    assert message == f"the kernel build failed; see {log}"
    assert log.read_text().endswith("oh no\n")


def test_a_patch_that_does_not_apply_stops_the_build(workshop: Path) -> None:
    (workshop / "patch").write_text("--- a/source\n+++ b/source\n@@ -1 +1 @@\n-other\n+new\n")
    assert "`patch -p1 -i" in failed_build(workshop, SubstrateError)


def test_a_source_that_is_cut_off_stops_the_build(workshop: Path) -> None:
    tarball = workshop / "linux-source-6.1.tar.xz"
    tarball.write_bytes(tarball.read_bytes()[:40])
    assert "`tar -xf" in failed_build(workshop, SubstrateError)


def test_a_missing_tool_is_named(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("tar", "xz"):
        (workshop / "bin" / tool).write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin exec {tool} "$@"\n')
        (workshop / "bin" / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(workshop / "bin"))
    assert failed_build(workshop, FeatureMissing).startswith("missing: patch. ")


def test_the_builder_as_a_program(
    workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.main() == 0
    assert capsys.readouterr().out == f"{kernel.kernel_path()}\n"
    (workshop / "config").write_text("CONFIG_REFUSED=y\n")
    assert kernel.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "qntn: the kernel source does not take CONFIG_REFUSED=y" in said.err
    monkeypatch.setattr(kernel, "SOURCES", workshop / "nowhere")
    assert kernel.main() == 2
    assert "apt-get install linux-source-6.1" in capsys.readouterr().err


def test_the_shipped_configuration_has_what_the_network_needs() -> None:
    options = kernel.CONFIG.read_text().splitlines()
    for needed in ("UML_TIME_TRAVEL_SUPPORT", "NET_SCH_NETEM", "TUN", "VETH", "PACKET", "HOSTFS"):
        assert f"CONFIG_{needed}=y" in options
