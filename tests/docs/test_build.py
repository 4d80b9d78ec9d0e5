"""The documentation builds without a warning and without network, and holds what the code offers."""

import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli import COMMANDS

ROOT = Path(__file__).parents[2]
WITHOUT_NETWORK = """
import socket, sys
def refuse(*arguments, **named): raise OSError("the documentation is built without network")
socket.socket.connect = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_documentation_builds_without_warnings_and_network(tmp_path: Path) -> None:
    options = ["-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *options, "docs", str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]

    commands = (tmp_path / "html" / "reference" / "commands.html").read_text(encoding="utf8")
    for name in COMMANDS:
        assert f"vitrine {name}" in commands, name
    settings = (tmp_path / "html" / "reference" / "settings.html").read_text(encoding="utf8")
    assert "trainer.max_steps" in settings
    python = (tmp_path / "html" / "reference" / "python.html").read_text(encoding="utf8")
    assert "ItemEncoder" in python
    pages = "".join(path.read_text(encoding="utf8") for path in (tmp_path / "html").rglob("*.html"))
    assert "http-equiv" not in pages
    assert 'src="http' not in pages, "a page loads something from elsewhere"
