"""What others install: digests of the lock file are held to, and a tag is the version of the package."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from fieldmark import __version__

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_setup_installs_nothing_without_a_digest_but_torch_and_the_installers(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "setup", f"VENV={tmp_path / 'venv'}"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = re.findall(r"pip install (.*)", recipe.replace("\\\n", " "))
    assert sum("--require-hashes" in each for each in installs) == 1
    for words in (each.split() for each in installs if "--require-hashes" not in each):
        options = {"--quiet", "--upgrade", "--retries", "10", "-c", f"{tmp_path / 'venv'}/constraints.txt"}
        named = {re.split(r"[>=]", word.strip("'"))[0] for word in words if word not in options}
        assert named in ({"pip", "uv"}, {"torch", "torchvision"}, {"--no-deps", "-e", "."})
    export = next(line for line in recipe.replace("\\\n", " ").splitlines() if "--no-emit-package" in line)
    assert "--no-hashes" not in export


def test_a_tag_is_the_version_and_has_its_changes(tmp_path: Path) -> None:
    problem = runpy.run_path(str(ROOT / "scripts/check_tag.py"))["problem"]
    assert "version" in problem("v99.0")
    (tmp_path / "src/fieldmark").mkdir(parents=True)
    shutil.copy(ROOT / "src/fieldmark/__init__.py", tmp_path / "src/fieldmark")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    assert "CHANGELOG" in problem(f"v{__version__}", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [{__version__}] - 2030-01-01\n")
    assert problem(f"v{__version__}", tmp_path) == ""
