"""Manifests: what is sealed comes back, and a change of anything shows."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.secrets import Secret
from backup.errors import Damaged
from backup.manifest import Manifest, Missing, seal, unseal
from tests.backup.made import NOW, archive, manifest

KEY = Secret("a key that is also kept elsewhere")
MADE = manifest(1, NOW, notes={"paths": '/etc, /srv/ümlaut "x"'}, versions={"tar": "1.34"})
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "with a key"])


@KEYS
def test_what_is_sealed_comes_back(key: Secret | None) -> None:
    content = seal(MADE, key)
    assert unseal(content, key, MADE.stored_name) == MADE
    assert json.loads(content)["id"] == MADE.id


@KEYS
def test_one_flipped_bit_anywhere_in_a_manifest_shows(key: Secret | None) -> None:
    content = seal(MADE, key)
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(Damaged):
                unseal(bytes(flipped), key, MADE.stored_name)


@KEYS
def test_a_manifest_cut_off_anywhere_is_none(key: Secret | None) -> None:
    content = seal(MADE, key)
    for size in range(len(content)):
        with pytest.raises(Damaged):
            unseal(content[:size], key, MADE.stored_name)


@given(st.binary(min_size=1, max_size=200))
def test_bytes_of_anybody_are_no_manifest(content: bytes) -> None:
    for text in (content, seal(MADE, None) + content + b"x", content + seal(MADE, KEY)):
        with pytest.raises(Damaged):
            unseal(text, KEY, MADE.stored_name)


@pytest.mark.parametrize(
    ("sealed_with", "read_with", "said"),
    [
        (None, KEY, "is not sealed with the job's key"),
        (KEY, None, "the job has none"),
        (Secret("another key"), KEY, "sealed with another key"),
    ],
)
def test_write_access_to_the_target_plants_nothing(
    sealed_with: Secret | None, read_with: Secret | None, said: str
) -> None:
    with pytest.raises(Damaged, match=said):
        unseal(seal(MADE, sealed_with), read_with, MADE.stored_name)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(MADE, version=99), "version 99"),
        (replace(MADE, id="../../etc"), "copied or moved"),
        (replace(MADE, host="other"), "copied or moved"),
        (replace(MADE, archives=(archive(prefix="web1/other/x"),)), "outside of its own backup"),
        (replace(MADE, archives=(replace(MADE.archives[0], stored=f"{MADE.prefix}/../../../etc/passwd"),)), "outside"),
        (replace(MADE, archives=(replace(MADE.archives[0], stored=f"{MADE.prefix}/.."),)), "no name"),
        (replace(MADE, archives=(replace(MADE.archives[0], sha256="short"),)), "outside"),
        (replace(MADE, archives=(replace(MADE.archives[0], raw_bytes=-1),)), "negative size"),
    ],
)
def test_without_a_key_a_forged_manifest_still_leads_nowhere_else(changed: Manifest, said: str) -> None:
    with pytest.raises(Damaged, match=said):
        unseal(seal(changed, None), None, MADE.stored_name)


def test_an_incomplete_backup_is_never_a_verified_one() -> None:
    assert MADE.is_verified
    assert not replace(MADE, missing=(Missing("db", "it failed"),)).is_verified
    assert not replace(MADE, archives=()).is_verified
    assert not replace(MADE, level=0).is_verified


def test_the_seal_can_be_checked_by_hand(tmp_path: Path) -> None:
    """The command of the module's docstring, with plain tools."""
    file = tmp_path / "manifest.json"
    file.write_bytes(seal(MADE, KEY))
    command = f'head -c -$(tail -n 2 {file} | wc -c) {file} | head -c -2 | openssl dgst -sha256 -hmac "{KEY.reveal()}"'
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == json.loads(file.read_text())["seal"].partition(":")[2]
