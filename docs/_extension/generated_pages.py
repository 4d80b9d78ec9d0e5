"""Sphinx extension: fills pages with what is generated from the code.

A line `<!-- generated: NAME -->` in a page is replaced by the Markdown that the function of that name in
`GENERATORS` returns. A name that is not known ends the build.
"""

import re
from typing import TYPE_CHECKING

import command_reference
import kinds_reference
import python_reference
import results_reference
import settings_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GENERATORS = {
    "commands": command_reference.page,
    "settings": settings_reference.page,
    "python": python_reference.page,
    "kinds": kinds_reference.page,
    "results": results_reference.page,
    "shipped-configs": settings_reference.shipped,
}
PLACE = re.compile(r"^<!-- generated: (?P<name>[\w-]+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """The page with each marked line replaced by what is generated."""
    return PLACE.sub(lambda place: GENERATORS[place["name"]](), text)


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, fill(source[0])))
    return {"parallel_read_safe": True}
