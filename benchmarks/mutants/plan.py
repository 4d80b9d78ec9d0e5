"""Reads the planted faults from YAML and applies one to the text of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    """Says the fault, in lower-case words joined by hyphens."""
    file: str
    """Path from the root."""
    find: str
    """Text that occurs exactly once in the file."""
    replace: str
    tests: tuple[str, ...]
    """pytest selections, of which at least one test must fail with the fault."""

    def applied(self, text: str) -> str:
        """The file's text with the fault; ValueError where it can be planted in no one place."""
        count = text.count(self.find)
        if count != 1:
            raise ValueError(f"{self.name}: its text occurs {count} times in {self.file}, not once")
        changed = text.replace(self.find, self.replace)
        if self.file.endswith(".py"):
            try:
                compile(changed, self.file, "exec", dont_inherit=True)
            except SyntaxError as error:
                raise ValueError(f"{self.name}: {self.file} no longer compiles: {error}") from error
        return changed

    def key(self, root: Path) -> str:
        """Hash of the fault, of the file it is planted in and of the files of its tests."""
        digest = sha256(repr(self).encode())
        for path in (self.file, *self.test_files):
            digest.update((root / path).read_bytes())
        return digest.hexdigest()[:16]

    @property
    def test_files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(test.split("::")[0] for test in self.tests))


def load_mutants(folder: Path = FOLDER) -> list[Mutant]:
    """All mutants of `folder/*.yaml`; ValueError where one lacks a field or a name occurs twice."""
    found: dict[str, Mutant] = {}
    for path in sorted(folder.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
            try:
                mutant = Mutant(**{**entry, "tests": tuple(entry["tests"])})
            except (KeyError, TypeError) as error:
                raise ValueError(f"{path.name}: {entry} is not a mutant: {error}") from error
            if mutant.name in found:
                raise ValueError(f"{path.name}: mutant {mutant.name!r} is there twice")
            if not mutant.tests or mutant.find == mutant.replace:
                raise ValueError(f"{path.name}: mutant {mutant.name!r} has no tests or no fault")
            found[mutant.name] = mutant
    return list(found.values())


def share_of(mutants: Sequence[Mutant], share: str) -> list[Mutant]:
    """Every N-th mutant, from the K-th on, of a share `K/N`; all N shares together are all of them."""
    part, _, parts = share.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"share {share!r} must be K/N with 1 <= K <= N, such as 3/10")
    return list(mutants[int(part) - 1 :: int(parts)])
