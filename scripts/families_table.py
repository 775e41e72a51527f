"""Write the table of timm's families into docs/backbones.md: the smallest network of each, tried.

    python scripts/families_table.py --into docs/backbones.md

A family is a module of timm. Of each, the network with the fewest parameters among those whose names sound
small is described; `tests/contract/test_families.py` computes the features of all of them.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

from fieldmark.models import architecture, timm
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

_SMALL = re.compile(
    r"atto|femto|pico|nano|tiny|micro|mini|small|xxs|xs|_s\b|_s_|_t\b|_t_|x0_|050|_0\b|b0|m0|18|_9_|d1|88m|167m"
)
_TRIED = 8  # names of a family that are built to find the smallest


def families() -> dict[str, list[str]]:
    """Return the networks of each module of timm."""
    library = timm.load_library()
    found: dict[str, list[str]] = defaultdict(list)
    for name in library.list_models():
        found[library.models._registry._model_to_module[name]].append(name)
    return dict(sorted(found.items()))


def smallest(names: list[str]) -> tuple[str, int]:
    """Return the network with the fewest parameters of those that sound small, and their number."""
    import torch

    small = [name for name in names if _SMALL.search(name)][: _TRIED - 2]
    sizes = {}
    for name in dict.fromkeys([*small, names[0], names[-1]]):
        with torch.device("meta"):
            network = timm.load_library().create_model(name, pretrained=False)
        sizes[name] = sum(each.numel() for each in network.parameters())
    name = min(sizes, key=lambda each: sizes[each])
    return name, sizes[name]


def row(family: str, names: list[str]) -> str:
    """Return the row of a family."""
    name, parameters = smallest(names)
    first = f"| `{family}` | {len(names)} | `{name}` | {parameters / 1e6:.1f} |"
    try:
        facts = architecture(timm.PREFIX + name)  # not torchvision's of the same name
    except InputError as error:
        return f"{first} | | {str(error).partition(': ')[2]} |"
    return f"{first} {facts.feature_dim} | {facts.input_size} | {facts.last_layer} |"


def main() -> None:
    """Write the table between its marks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, required=True)
    into = parser.parse_args().into
    head = [
        "| Family | Networks | Smallest | Million parameters | Features | Side | Last layer, or why not |",
        "|---|---|---|---|---|---|---|",
    ]
    table = "\n".join([*head, *(row(*each) for each in families().items())])
    marks = re.compile(r"(<!-- families:begin -->\n).*?(\n<!-- families:end -->)", re.DOTALL)
    text = into.read_text(encoding="utf-8")
    io.write_text(into, marks.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", text))


if __name__ == "__main__":
    main()
