"""Install a wheel into an empty virtual environment, and run demo, train, predict and serve from it.

`python scripts/try_wheel.py dist/*.whl`; `--beside FOLDER` takes other packages from that folder instead of
the package index. Nothing of this checkout is on the path of what is run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path


def main() -> None:
    """Install, run and say what was run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--beside", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        wheel = str(options.wheel.absolute())
        more = ["--no-deps", wheel] if options.beside else [f"{wheel}[serve]"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *more], check=True)
        if options.beside:
            packages = next(place.glob("venv/lib/*/site-packages"), place / "venv/Lib/site-packages")
            (packages / "beside.pth").write_text(f"{options.beside.absolute()}\n")
        try_all(python.with_name("fieldmark"), place)


def try_all(program: Path, place: Path) -> None:
    """Run the commands in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"FIELDMARK_CACHE": str(place / "cache")}
    # With --language the catalogues are read, which are no modules.
    how = ("--groups", "none", "--holdout", "--language", "de")
    train = ("train", "demo/field-guide", "--out", "model", *how)
    for arguments in (
        *(("--version",), ("demo", "--species", "4", "--photos", "40"), train),
        ("predict", "model", "demo/field-guide", "--out", "names.csv"),
    ):
        done = subprocess.run([program, *arguments], cwd=place, env=environment, check=False)
        # 2: two of the demo's files are no photos, and the others have names.
        if done.returncode not in ((0, 2) if (place / "names.csv").exists() else (0,)):
            sys.exit(f"fieldmark {' '.join(arguments)}: exit code {done.returncode}")
        sys.stdout.write(f"fieldmark {' '.join(arguments)}: done\n")
    command = [program, "serve", "model", "--port", "0"]
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
        with urllib.request.urlopen(f"{url}/v1/model") as answer:
            sys.stdout.write(f"fieldmark serve: status {answer.status}\n")
        server.terminate()
        server.stderr.read()
    sys.stdout.write(f"fieldmark serve: exit code {server.returncode} after SIGTERM\n")


if __name__ == "__main__":
    main()
