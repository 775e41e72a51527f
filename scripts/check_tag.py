"""Check that a tag, `v1.2.3`, is the version of the package, and that CHANGELOG.md has a section for it.

python scripts/check_tag.py TAG
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def problem(tag: str, root: Path = ROOT) -> str:
    """Return why a release must not have this tag; empty if it may."""
    package = (root / "src/fieldmark/__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)[0]
    if tag != f"v{version}":
        return f"The tag is {tag}, and the version in src/fieldmark/__init__.py is {version}."
    if f"\n## [{version}]" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        return f"CHANGELOG.md has no section [{version}]."
    return ""


if __name__ == "__main__":
    sys.exit(problem(*sys.argv[1:]) or None)
