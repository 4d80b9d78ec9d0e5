"""Every kind of fault that the catalog check finds, generated from `catalog.doctor.kinds.KINDS`."""

from markdown_text import code, escaped, table

from catalog.doctor.kinds import KINDS, SEVERITIES


def page() -> str:
    """One table: the worst severity first."""
    rows = [
        [code(slug), severity, escaped(kind.rule), escaped(kind.remedy)]
        for severity in SEVERITIES
        for slug, kind in KINDS.items()
        if kind.severity == severity
    ]
    return "\n".join(table(["kind", "severity", "rule", "remedy"], rows))
