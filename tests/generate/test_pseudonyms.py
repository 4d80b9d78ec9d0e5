"""One name for one user under one key, from a key of its own that may be changed."""

import os
import stat
from pathlib import Path

import pytest

from catalog.errors import VitrineError
from generate.pseudonyms import known_keys, pseudonymize, rotate_user_key, user_key


@pytest.fixture(autouse=True)
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "keys" / "users.key"
    monkeypatch.setenv("VITRINE_USER_KEY", str(file))
    return file


def test_pseudonyms_are_opaque_and_the_same_under_one_key(ring: Path) -> None:
    names = {pseudonymize(f"user {number}") for number in range(100)}
    assert len(names) == 100
    assert not any("user" in name for name in names)
    assert pseudonymize("user 3") == pseudonymize("user 3")
    assert pseudonymize(None) == ""
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert os.listdir(ring.parent) == ["users.key"]


def test_another_signing_key_changes_no_pseudonym(tmp_path: Path, monkeypatch) -> None:
    before = pseudonymize("user 3")
    monkeypatch.setenv("VITRINE_KEY", str(tmp_path / "other.pem"))
    assert pseudonymize("user 3") == before


def test_a_retired_key_stays_known(ring: Path) -> None:
    first, name = user_key(), pseudonymize("user 3")
    second = rotate_user_key()
    assert user_key() == second != first
    assert pseudonymize("user 3") != name
    assert known_keys() == [second, first]
    assert known_keys([ring]) == [second, first]
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert second.secret.hex() not in second.fingerprint != first.fingerprint


def test_a_file_without_keys_gives_an_error_of_one_line(ring: Path, tmp_path: Path) -> None:
    ring.parent.mkdir()
    for content in ("no key", "", "ab" * 31):
        ring.write_text(content)
        with pytest.raises(VitrineError, match="holds no user keys"):
            pseudonymize("a")
    ring.write_text("ab" * 32)
    assert pseudonymize("a").startswith("p-")
    with pytest.raises(VitrineError, match="nothing cannot be read"):
        known_keys([tmp_path / "nothing"])
