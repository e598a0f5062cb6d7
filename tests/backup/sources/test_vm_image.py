"""Disks of virtual machines: real image files, and a real libvirt with emulated machines that run meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.assertions import Assertion
from backup.errors import Damaged, Refused
from backup.sources.vm_image import VMImage
from tests.backup.hosts import BackedUp, ended
from tests.backup.sources.round import Round, as_pipe, outcomes, unmet
from tests.servers.libvirt import Libvirt
from tests.servers.process import run, wait_until
from tests.servers.programs import need


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirt]:
    need("libvirtd", "virsh", "qemu-system-x86_64", "qemu-img")
    with Libvirt() as server:
        yield server


@pytest.fixture
def libvirt(daemon: Libvirt) -> Iterator[Libvirt]:
    yield daemon
    for name in daemon.virsh("list", "--name").split():
        daemon.virsh("destroy", name)
    for name in daemon.virsh("list", "--name", "--all").split():
        daemon.virsh("undefine", name)
    for file in (daemon.data_dir / "images").iterdir():
        file.unlink()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    need("qemu-img", "qemu-io")
    file = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", file, "16M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 90 1M 1M", file)
    return file


def a_round(host: BackedUp, **options: Any) -> Round:
    return Round(host, host.job(source={"vm_image": options}))


def same(one: Path, other: Path) -> bool:
    """Whether two images hold the same bytes for their machines."""
    return subprocess.run(["qemu-img", "compare", "-q", "-U", one, other], check=False).returncode == 0


def disk(libvirt: Libvirt, domain: str) -> str:
    return libvirt.virsh("domblklist", domain).split()[1]


def test_an_image_that_was_removed_comes_back_as_it_was(host: BackedUp, tmp_path: Path, image: Path) -> None:
    round_ = a_round(host, images=[str(image)])
    manifest = round_.back_up()
    assert [(one.name, one.extension, one.level) for one in manifest.archives] == [("disk.qcow2", "qcow2", 2)]
    image.rename(tmp_path / "kept")
    round_.restore(str(image))
    assert same(image, tmp_path / "kept")


def test_an_image_on_a_base_is_copied_with_what_is_in_the_base(host: BackedUp, tmp_path: Path, image: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", tmp_path / "top.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 4M 1M", tmp_path / "top.qcow2")
    round_ = a_round(host, images=[str(tmp_path / "top.qcow2")])
    round_.back_up()
    round_.restore(str(tmp_path / "again.qcow2"))
    assert same(tmp_path / "again.qcow2", tmp_path / "top.qcow2")
    assert "backing" not in run("qemu-img", "info", tmp_path / "again.qcow2")


def test_an_image_that_a_machine_writes_to_is_refused(host: BackedUp, image: Path) -> None:
    machine = subprocess.Popen(["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert machine.stdin is not None
        assert machine.stdout is not None
        machine.stdin.write(b"length\n")
        machine.stdin.flush()
        assert machine.stdout.readline()  # it is open now
        a_round(host, images=[str(image)])
        done = host.run()
    finally:
        machine.communicate()
    assert done.code == 1
    assert "lock" in done.result["error"]
    assert host.stored() == []


def test_a_missing_image_is_an_error(host: BackedUp, tmp_path: Path) -> None:
    a_round(host, images=[str(tmp_path / "nosuch.qcow2")])
    assert "no such file" in host.run().result["error"]


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: b"\0" * 64 + content[64:],
    lambda content: content[:262144] + b"\xff" * 65536 + content[327680:],
], ids=["empty", "half", "no header", "tables overwritten"])  # fmt: skip
def test_a_damaged_image_is_found(host: BackedUp, image: Path, damage: Any) -> None:
    round_ = a_round(host, images=[str(image)])
    content = image.read_bytes()
    assert round_.check("disk.qcow2", content) is None
    assert isinstance(round_.check("disk.qcow2", damage(content)), Damaged)


def test_an_image_that_leads_to_another_file_is_refused(host: BackedUp, tmp_path: Path, image: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", tmp_path / "evil.qcow2")
    found = a_round(host, images=[str(image)]).check("disk.qcow2", (tmp_path / "evil.qcow2").read_bytes())
    assert "leads to another file" in str(found)


def test_what_is_asserted_of_a_definition_is_looked_at(host: BackedUp) -> None:
    found = VMImage(domains=["box"])
    with as_pipe(b"<domain type='kvm'><name>box</name></domain>") as plain:
        outcomes = found.drill("box-definition", plain, host.work(), [Assertion(sql="SELECT 1 = 1")], {})
    assert [(one.assertion, one.is_met) for one in outcomes] == [
        ("the definition is whole", True), ("SELECT 1 = 1 = true", False)
    ]  # fmt: skip


def test_a_restore_over_an_image_is_refused_unless_forced(host: BackedUp, image: Path) -> None:
    round_ = a_round(host, images=[str(image)])
    round_.back_up()
    image.write_bytes(b"newer")
    with pytest.raises(Refused):
        round_.restore(str(image))
    assert image.read_bytes() == b"newer"
    round_.restore(str(image), allow=["force"])
    assert len(image.read_bytes()) > 1 << 20


def test_a_drill_reads_every_block(host: BackedUp, image: Path) -> None:
    round_ = a_round(host, images=[str(image)])
    round_.back_up()
    evidence = round_.drill({"file_exists": ["disk.raw"]})
    assert evidence.is_passed, unmet(evidence)
    assert outcomes(evidence, "disk.qcow2")["every block can be read"]


def test_a_running_machine_is_copied_and_is_back_on_its_own_disks(
    host: BackedUp, tmp_path: Path, libvirt: Libvirt
) -> None:
    images = [libvirt.image("a.qcow2"), libvirt.image("b, 2.qcow2", pattern=7)]
    libvirt.domain("box", *images)
    round_ = a_round(host, domains=["box"], uri=libvirt.uri)
    manifest = round_.back_up()
    assert [one.name for one in manifest.archives] == ["box-vda", "box-vdb", "box-definition"]
    assert libvirt.virsh("domstate", "box") == "running"
    assert disk(libvirt, "box") == str(images[0])
    assert sorted(file.name for file in (libvirt.data_dir / "images").iterdir()) == ["a.qcow2", "b, 2.qcow2"]
    libvirt.virsh("destroy", "box")
    for name, file in zip(("box-vda", "box-vdb"), images, strict=True):
        round_.restore(str(tmp_path / name), [name])
        assert same(tmp_path / name, file)
    round_.restore(str(tmp_path / "box.xml"), ["box-definition"])
    assert f"<source file='{images[0]}'/>" in (tmp_path / "box.xml").read_text()
    assert round_.drill().is_passed


def test_what_a_disk_lies_on_is_not_written_to(host: BackedUp, tmp_path: Path, libvirt: Libvirt) -> None:
    base = libvirt.image("base.qcow2")
    disks = [libvirt.clone(base, name) for name in ("a.qcow2", "b.qcow2")]
    before = base.read_bytes(), base.stat().st_mtime_ns
    libvirt.domain("box", disks[0])
    round_ = a_round(host, domains=["box"], uri=libvirt.uri)
    round_.back_up()
    assert disk(libvirt, "box") == str(disks[0])
    libvirt.virsh("destroy", "box")
    assert (base.read_bytes(), base.stat().st_mtime_ns) == before
    assert f"backing file: {base}" in run("qemu-img", "info", disks[0])
    round_.restore(str(tmp_path / "again"), ["box-vda"])
    assert same(tmp_path / "again", disks[0])


def test_a_machine_that_is_off_needs_no_snapshot(host: BackedUp, tmp_path: Path, libvirt: Libvirt) -> None:
    file = libvirt.image("a.qcow2")
    libvirt.domain("box", file)
    libvirt.virsh("destroy", "box")
    round_ = a_round(host, domains=["box"], uri=libvirt.uri)
    assert round_.back_up().is_complete
    libvirt.domain("other", libvirt.image("b.qcow2"))
    seen = round_.source.inventory(host.work())
    assert (seen.there, seen.known) == ({"box", "other"}, {"box"})
    round_.restore(str(tmp_path / "again"), ["box-vda"])
    assert same(tmp_path / "again", file)


def test_quiescing_without_an_agent_fails_and_leaves_the_machine_as_it_was(host: BackedUp, libvirt: Libvirt) -> None:
    file = libvirt.image("a.qcow2")
    libvirt.domain("box", file)
    a_round(host, domains=["box"], uri=libvirt.uri, quiesce=True)
    done = host.run()
    assert done.code == 1
    assert "agent" in done.result["error"]
    assert disk(libvirt, "box") == str(file)
    assert [one.name for one in (libvirt.data_dir / "images").iterdir()] == ["a.qcow2"]


def test_after_a_kill_the_next_run_merges_what_the_machine_wrote_meanwhile(host: BackedUp, libvirt: Libvirt) -> None:
    file = libvirt.image("a.qcow2")
    libvirt.domain("box", file)
    host.job(source={"vm_image": {"domains": ["box"], "uri": libvirt.uri}}, limits={"rate": "1KiB"},
             compression={"program": "none"})  # fmt: skip
    worker = host.start()
    wait_until(lambda: any("dump" in line for line in _lines(worker)), "the copy to begin")
    worker.send_signal(signal.SIGKILL)
    ended(worker)
    overlay = disk(libvirt, "box")
    assert overlay.startswith(f"{file}.vigilhost-")

    a_round(host, domains=["box"], uri=libvirt.uri)
    done = host.run()

    assert done.code == 0, done.result
    assert "box: vda is back on its own file" in [event["what"] for event in done.events if event["event"] == "swept"]
    assert disk(libvirt, "box") == str(file)
    assert not Path(overlay).exists()


def _lines(worker: subprocess.Popen[bytes]) -> list[str]:
    assert worker.stdout is not None
    return [worker.stdout.readline().decode()]


def on_an_overlay(host: BackedUp, libvirt: Libvirt) -> tuple[Path, Path]:
    """A machine as a killed run leaves it: its disk and the overlay that it writes to."""
    file = libvirt.image("a.qcow2")
    libvirt.domain("box", file)
    overlay = f"{file}.vigilhost-1a2b3c4d-5e6f7081"
    put_on(libvirt, overlay)
    scratch = host.directory / "state" / "scratch"
    scratch.mkdir(parents=True)
    entry = {"domain": "box", "target": "vda", "file": str(file), "overlay": overlay}
    (scratch / "job.undo").write_text(json.dumps([entry]))
    a_round(host, domains=["box"], uri=libvirt.uri)
    return file, Path(overlay)


def put_on(libvirt: Libvirt, overlay: str) -> None:
    libvirt.virsh("snapshot-create-as", "box", "x", "--disk-only", "--atomic", "--no-metadata", "--diskspec",
                  f"vda,snapshot=external,file={overlay}")  # fmt: skip


def test_an_overlay_with_a_snapshot_of_somebody_else_on_it_is_kept(host: BackedUp, libvirt: Libvirt) -> None:
    file, overlay = on_an_overlay(host, libvirt)
    theirs = f"{file}.theirs"
    put_on(libvirt, theirs)

    done = host.run()

    assert any(f"box: vda is on {theirs}, not on {file}; keep {overlay}" in text for text in done.result["warnings"])
    assert overlay.exists()
    assert disk(libvirt, "box") == theirs
    for _ in range(2):  # theirs into ours, ours into the disk
        libvirt.virsh("blockcommit", "box", "vda", "--shallow", "--active", "--pivot", "--wait")
    assert host.run().result["warnings"] == []
    assert not overlay.exists()


def test_the_overlay_of_a_disk_that_was_detached_is_kept(host: BackedUp, libvirt: Libvirt) -> None:
    file, overlay = on_an_overlay(host, libvirt)
    libvirt.virsh("destroy", "box")
    libvirt.virsh("detach-disk", "box", "vda", "--config")

    done = host.run()

    assert any("box: vda is not attached" in text and f"keep {overlay}" in text for text in done.result["warnings"])
    assert overlay.exists()
    assert file.exists()


def test_an_overlay_in_use_is_kept_while_its_machine_is_off(host: BackedUp, libvirt: Libvirt) -> None:
    file, overlay = on_an_overlay(host, libvirt)
    libvirt.virsh("destroy", "box")

    done = host.run()

    assert any("keep that file" in text for text in done.result["warnings"])
    assert overlay.exists()
    libvirt.virsh("start", "box")
    assert host.run().code == 0
    assert disk(libvirt, "box") == str(file)
