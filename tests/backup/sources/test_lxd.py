"""LXD through a scripted stand-in for its client; tests/proof/lxd.py has a real LXD, which takes minutes."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backup.errors import Damaged, Refused
from backup.sources.scratch import throwaway_name
from tests.backup.hosts import HOST, BackedUp
from tests.backup.sources.round import Round, outcomes, unmet
from tests.servers import lxc_stand_in

WEB = {"backup/index.yaml": "name: web", "backup/container/rootfs/etc/hostname": "web"}
DATA = {"backup/index.yaml": "name: data", "backup/volume/precious": "yes"}


class StandIn:
    """A directory that behaves as a server of LXD with the instances `mail` and `web` and the volume `fast/data`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = directory / "lxc"
        for name in ("instances", "volumes/fast", "fails"):
            (directory / name).mkdir(parents=True)
        shutil.copy(lxc_stand_in.__file__, self.program)
        self.program.chmod(0o755)
        (directory / "calls").touch()
        for name in ("mail", "web"):
            (directory / "instances" / name).write_bytes(tar_of(WEB))
        (directory / "volumes" / "fast" / "data").write_bytes(tar_of(DATA))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]

    def names(self, where: str) -> list[str]:
        return sorted(path.name for path in (self.directory / where).iterdir())


def tar_of(files: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


@pytest.fixture
def lxd(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "lxd")


def a_round(host: BackedUp, lxd: StandIn, **options: Any) -> Round:
    return Round(host, host.job(source={"lxd": {"program": str(lxd.program), **options}}))


def test_by_stand_in_instances_volumes_and_settings_are_all_exported(host: BackedUp, lxd: StandIn) -> None:
    manifest = a_round(host, lxd).back_up()
    assert [(one.name, one.extension, one.level) for one in manifest.archives] == [
        ("mail", "tar", 2), ("web", "tar", 2), ("volume/fast/data", "tar", 2), ("settings/profiles", "json", 2),
        ("settings/networks", "json", 2), ("settings/storage-pools", "json", 2),
    ]  # fmt: skip
    assert dict(manifest.notes) == {"instance mail": "Running", "instance web": "Running"}


def test_by_stand_in_the_argument_lists_are_those_of_the_manual(host: BackedUp, lxd: StandIn) -> None:
    a_round(host, lxd, instances=["web"], snapshots=False, project="shop").back_up()
    common = ["--compression=none", "--quiet", "--project=shop"]
    exports = [[*call[:-5], "FILE", *call[-4:]] for call in lxd.calls if "export" in call]
    assert exports == [
        ["export", "web", "FILE", "--instance-only", *common],
        ["storage", "volume", "export", "fast", "data", "FILE", "--volume-only", *common],
    ]
    assert [call for call in lxd.calls if call[0] == "query"] == [
        ["query", f"/1.0/{kind}?recursion=1&project=shop"] for kind in ("profiles", "networks", "storage-pools")
    ]


def test_by_stand_in_what_was_deleted_comes_back(host: BackedUp, tmp_path: Path, lxd: StandIn) -> None:
    round_ = a_round(host, lxd)
    round_.back_up()
    instance, volume = lxd.directory / "instances" / "web", lxd.directory / "volumes" / "fast" / "data"
    instance.unlink()
    volume.unlink()
    round_.restore("web", ["web"])
    round_.restore("fast/data", ["volume/fast/data"])
    round_.restore(str(tmp_path / "profiles.json"), ["settings/profiles"])
    assert (instance.read_bytes(), volume.read_bytes()) == (tar_of(WEB), tar_of(DATA))
    assert json.loads((tmp_path / "profiles.json").read_text())[0]["name"] == "default"


@pytest.mark.parametrize(("archive", "to"), [
    ("web", "mail"), ("volume/fast/data", "fast/data"), ("volume/fast/data", "data"), ("settings/profiles", "/etc"),
])  # fmt: skip
def test_by_stand_in_nothing_that_is_there_is_replaced(host: BackedUp, lxd: StandIn, archive: str, to: str) -> None:
    round_ = a_round(host, lxd)
    round_.back_up()
    with pytest.raises(Refused):
        round_.restore(to, [archive], allow=["force"])
    assert not any("import" in call for call in lxd.calls)


def test_by_stand_in_an_export_that_fails_leaves_no_part_of_it(host: BackedUp, lxd: StandIn) -> None:
    (lxd.directory / "fails" / "export-web").touch()
    a_round(host, lxd)
    done = host.run()
    assert done.code == 1
    assert "scripted to fail" in done.result["error"]
    assert not any("web.tar" in name for name in host.stored())
    manifest = host.manifests()[0]
    assert [one.name for one in manifest.missing] == ["web"]
    assert len(manifest.archives) == 5  # one that fails does not keep the others away


def test_by_stand_in_a_drill_imports_under_a_random_name_and_deletes_it(host: BackedUp, lxd: StandIn) -> None:
    round_ = a_round(host, lxd)
    round_.back_up()
    evidence = round_.drill(
        {"archive": "web", "file_exists": ["/etc/hostname"]},
        {"archive": "volume/fast/data", "file_exists": ["precious"]},
    )
    assert evidence.is_passed, unmet(evidence)
    imported = [call[2] for call in lxd.calls if call[0] == "import"]
    assert len(imported) == 2
    assert all(name.startswith("vigilhost-drill-") and len(name) <= 63 for name in imported)
    assert [call[2] for call in lxd.calls if call[0] == "delete"] == imported
    assert (lxd.names("instances"), lxd.names("volumes/fast")) == (["mail", "web"], ["data"])


def test_by_stand_in_a_drill_tells_what_is_not_so(host: BackedUp, lxd: StandIn) -> None:
    round_ = a_round(host, lxd, instances=["web"])
    round_.back_up()
    evidence = round_.drill({"file_exists": ["etc/nothing"], "sql": "SELECT 1"},
                            {"archive": "settings/profiles", "file_exists": ["default"]})  # fmt: skip
    assert outcomes(evidence, "settings/profiles") == {"the settings are whole": True, "default exists": False}
    assert outcomes(evidence, "web") == {
        "it can be imported": True, "etc/nothing exists": False, "SELECT 1 = true": False
    }  # fmt: skip


def test_by_stand_in_what_a_killed_drill_left_is_swept_and_nothing_else(host: BackedUp, lxd: StandIn) -> None:
    left, others = throwaway_name(HOST, "job", "-"), throwaway_name(HOST, "another", "-")
    for where in ("instances", "volumes/fast"):
        for name in (left, others):
            (lxd.directory / where / name).write_bytes(tar_of(WEB))
    a_round(host, lxd)
    done = host.run()
    swept = [event["what"] for event in done.events if event["event"] == "swept"]
    assert swept == [f"import {left}", f"import fast/{left}"]
    assert (lxd.names("instances"), lxd.names("volumes/fast")) == (
        ["mail", others, "web"], ["data", others]
    )  # fmt: skip
    assert not any("drill" in one.name for one in host.manifests()[0].archives)


def test_by_stand_in_a_missing_instance_is_an_error(host: BackedUp, lxd: StandIn) -> None:
    a_round(host, lxd, instances=["web", "nosuch"])
    done = host.run()
    assert done.code == 1
    assert "nosuch: no such instance" in done.result["error"]


def test_by_stand_in_iso_images_are_left_out_with_a_warning(host: BackedUp, lxd: StandIn) -> None:
    (lxd.directory / "has-iso").touch()
    a_round(host, lxd)
    assert host.run().result["warnings"] == [
        "fast/installer: an ISO image is left out; keep the file it came from"
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), [
    ("web", tar_of(WEB)[:700]), ("web", b"not a tar"), ("settings/profiles", b'[{"name": "def'),
    ("settings/profiles", b"{}"),
])  # fmt: skip
def test_a_damaged_export_is_found(host: BackedUp, lxd: StandIn, name: str, content: bytes) -> None:
    assert isinstance(a_round(host, lxd).check(name, content), Damaged)
