"""The documents agree with the code: commands, options, names, columns, layers, files, links."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

import fieldmark
from fieldmark.cli import app
from fieldmark.data import photos, readers
from fieldmark.data.stats import stats
from fieldmark.experiments import recipes
from fieldmark.models import BACKBONES, runtime
from fieldmark.training.summary import ClassifierSummary
from fieldmark.utils.choices import SplitMethod
from fieldmark.utils.errors import InputError, RejectReason

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS: dict[str, Any] = app.commands
EVERYWHERE = {"--help"}
PAPER = "docs/paper.md"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def options_of(verb: str) -> set[str]:
    given = [p for p in COMMANDS[verb].params if p.param_type_name == "option"]
    return {name for option in given for name in (*option.opts, *option.secondary_opts)}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The code in the first cells of a text's table rows."""
    cells = re.findall(r"^\| *([^|]+?) *\|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# Verbs and options


def test_every_verb_has_its_section_and_no_other() -> None:
    titles = re.findall(r"^## (.+)$", read("docs/commands.md"), re.MULTILINE)
    assert sorted(titles) == sorted(COMMANDS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_of_a_verb_is_documented_and_no_other(verb: str) -> None:
    rows = first_cells(section(read("docs/commands.md"), verb))
    assert {name for name in rows if name.startswith("--")} == options_of(verb)
    arguments = [p for p in COMMANDS[verb].params if p.param_type_name == "argument"]
    assert [name.lower() for name in rows if not name.startswith("--")] == [
        argument.name for argument in arguments
    ]


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_defaults_that_are_documented_are_the_defaults(verb: str) -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)`[^|]*\| ([^|]+?) \|", section(read("docs/commands.md"), verb), re.MULTILINE
    )
    parameters = {name: p for p in COMMANDS[verb].params for name in p.opts}
    for option, said in rows:
        default = parameters[option].default
        if isinstance(default, bool):
            continue
        if isinstance(default, (int, float)):
            assert float(said) == default, option
        elif default not in (None, ()) and not parameters[option].required:
            values = default if isinstance(default, tuple) else (default,)
            assert said.strip("`") == ", ".join(map(str, values)), option
        else:
            assert not re.fullmatch(r"`.*`|[\d.]+", said), option


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_in_documents_can_be_typed(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for block in blocks(document.read_text(encoding="utf-8"), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                check_command(shlex.split(command, comments=True), targets)


def check_command(words: list[str], targets: set[str]) -> None:
    if not words:
        return
    if words[0] == "torchrun":
        words = words[words.index("fieldmark") :]
    program, *rest = words
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if program == "make":
        assert set(rest) <= targets, words
    elif Path(program).name == "fieldmark":
        verbs = [word for word in rest if not word.startswith("-")]
        if not verbs:
            assert given <= {"--help", "--version"}, words
            return
        assert verbs[0] in COMMANDS, words
        assert given <= options_of(verbs[0]) | EVERYWHERE, words
        if given & EVERYWHERE:
            return
        needed = {p.opts[0] for p in COMMANDS[verbs[0]].params if p.required and p.opts}
        assert {name for name in needed if name.startswith("--")} <= given, words
    else:
        assert program in {"git", "cd", ".", "python"}, words


def test_a_command_that_does_not_exist_is_found() -> None:
    for wrong in ("fieldmark brew MODEL", "fieldmark train PHOTOS --outt M", "make coffee"):
        with pytest.raises(AssertionError):
            check_command(shlex.split(wrong), {"demo"})


# Names, columns, keys


def test_every_public_name_exists_and_is_documented() -> None:
    documented = first_cells(read("docs/python.md"))
    assert sorted(documented) == sorted(fieldmark.__all__)
    assert len(fieldmark.__all__) <= 25
    for name in fieldmark.__all__:
        assert getattr(fieldmark, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fieldmark.nothing  # noqa: B018


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_is_python_and_imports_what_is_there(document: Path) -> None:
    for block in blocks(document.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fieldmark"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), block


def test_the_recipe_in_the_document_runs(tmp_path: Path) -> None:
    [block] = [b for b in blocks(read("docs/study.md"), "python") if "def recipe" in b]
    (tmp_path / "mine.py").write_text(block)
    made = recipes.find(str(tmp_path / "mine.py"))(recipes.Options(epochs=7))
    assert [run.pruned for run in made.runs] == [False, True, False, True, True]
    assert {run.epochs for run in made.runs} == {7}
    assert {run.backbone for run in made.runs if run.backbone} <= BACKBONES.keys()


def test_the_fields_of_a_run_and_the_tables_of_the_paper_are_documented() -> None:
    own = first_cells(section(read("docs/study.md"), "A recipe of your own"))
    assert own == [field.name for field in fields(recipes.Run)]
    tables = section(read("docs/study.md"), "The paper's recipe")
    said = {name: int(count) for name, count in re.findall(r"^\| `(\w+)` \| (\d+) \|", tables, re.M)}
    counted: dict[str, int] = {}
    for run in recipes.paper(recipes.Options()).runs:
        counted[run.table] = counted.get(run.table, 0) + 1
    assert said == counted


def test_columns_reasons_and_layouts_are_documented() -> None:
    text = read("docs/data.md")
    assert first_cells(section(text, "The table")) == list(photos.SCHEMA)
    assert first_cells(section(text, "Reasons")) == [reason.value for reason in RejectReason]
    assert re.findall(r"^### ([\w-]+):", section(text, "Layouts"), re.M) == list(readers.READERS)
    for way in ("stratified", "random", "official"):
        assert way in get_args(SplitMethod)
        assert f"- `{way}`:" in section(text, "Splits")


def test_the_measures_are_documented() -> None:
    documented = first_cells(section(read("docs/classifier.md"), "evaluation.json"))
    only_extended = {"grown"}
    assert set(documented) == {each.name for each in fields(ClassifierSummary)} - only_extended


def test_the_keys_of_stats_are_documented(insects: Path) -> None:
    text = section(read("docs/commands.md"), "stats")
    found = stats(readers.read(insects, verify=False))
    for key in (*found, *found["parts"], *found["parts"]["all"]):
        assert f"`{key}`" in text, key


def test_engines_and_networks_are_documented() -> None:
    options = section(read("docs/commands.md"), "train")
    for name in (*runtime.ENGINES, *BACKBONES):
        assert f"`{name}`" in options, name


# Architecture


def test_the_last_layer_of_every_network_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| `([\w.]+)`", read("docs/networks.md"), re.MULTILINE)
    said = {name: (int(dim), int(side), path) for name, dim, side, path in rows}
    assert said == {
        facts.name: (facts.feature_dim, facts.input_size, facts.last_layer_path)
        for facts in BACKBONES.values()
    }


def test_the_layers_are_those_of_the_contract() -> None:
    contract = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    drawn = blocks(section(read("ARCHITECTURE.md"), "Package layers"), "text")[0]
    assert contract["containers"] == ["fieldmark"]
    assert contract["exhaustive"]  # so that each package is in a layer
    assert drawn.splitlines() == contract["layers"]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    extras = project["project"]["optional-dependencies"].values()
    given = [*project["project"]["dependencies"], *(name for extra in extras for name in extra)]
    text = section(read("ARCHITECTURE.md"), "What we build on")
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| "))
    words = set(re.findall(r"[\w-]+", rows))
    for dependency in given:
        name = re.split(r"[><=\[]", dependency)[0]
        assert name in {*words, "fieldmark"}, name
    for dependency in project["dependency-groups"]["dev"]:
        assert re.split(r"[><=\[]", dependency)[0] in text, dependency


def test_the_file_tree_is_complete() -> None:
    tree = blocks(section(read("README.md"), "What is where"), "text")[0]
    drawn = re.findall(r"^  ([\w/]+(?:\.py)?) ", tree, re.MULTILINE)
    package = ROOT / "src" / "fieldmark"
    here = [path.name for path in package.glob("*.py")]
    here += [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    assert sorted(drawn) == sorted(here)
    top = re.findall(r"^(\w+)/", tree, re.MULTILINE)
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/*") if path.suffix in (".py", ".md")}
    assert set(top) == (folders | {"src"}) - {"site"}


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("ARCHITECTURE.md", 200)])
def test_the_first_documents_are_short(name: str, most: int) -> None:
    assert len(read(name).splitlines()) <= most


# The documentation site


@cache
def load_script(name: str) -> ModuleType:
    about = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert about is not None
    assert about.loader is not None
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def pages_of(entries: list[Any]) -> list[str]:
    """The pages of a navigation, in order."""
    found: list[str] = []
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += pages_of(value) if isinstance(value, list) else [value]
    return found


def test_the_navigation_lists_every_page_once() -> None:
    pages = pages_of(yaml.safe_load(read("mkdocs.yml"))["nav"])
    generated = {*load_script("site_pages").DOCUMENTS.values(), "api.md"}
    written = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages) == sorted(written | generated)


def test_the_site_has_an_entry_for_every_public_name_and_schema(tmp_path: Path) -> None:
    site = load_script("site_pages")
    names = re.findall(r"^::: fieldmark\.(\w+)$", site.api_page(), re.MULTILINE)
    assert sorted(names) == sorted(fieldmark.__all__)
    schema = {"title": "Study", "description": "All of a study."}
    (tmp_path / "study.schema.json").write_text(json.dumps(schema))
    assert "[Study](schemas/study.schema.json)" in site.schemas_page(tmp_path)


def test_links_of_documents_at_the_top_are_those_of_the_site() -> None:
    site = load_script("site_pages")
    text = "[a](docs/data.md#reasons) [b](CHANGELOG.md) [c](docs/images/page.png) [d](https://e.org)"
    assert site.linked(text, "README.md") == (
        "[a](data.md#reasons) [b](changelog.md) [c](images/page.png) [d](https://e.org)"
    )
    text = "[a](../benchmarks/README.md) [b](../ARCHITECTURE.md) [c](study.md#a-recipe-of-your-own)"
    assert site.linked(text, "docs/scaling.md") == (
        "[a](benchmarks.md) [b](architecture.md) [c](study.md#a-recipe-of-your-own)"
    )


# Links and paths


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and MkDocs write them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:src|tests|docs|scripts|benchmarks|examples)/[\w/.]*\w)`", document.read_text(encoding="utf-8")
    )
    for name in named:
        assert (ROOT / name).exists(), name


def texts() -> list[Path]:
    folders = [ROOT / name for name in ("src", "tests", "docs", "scripts", "benchmarks", "examples", ".ci")]
    suffixes = {".py", ".md", ".toml", ".html", ".css", ".js", ".json", ""}
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    every = [*found, *ROOT.glob("*.*"), ROOT / "Makefile"]
    return [p for p in every if p.is_file() and p.name != ".git"]  # a file in a worktree


def test_no_file_mentions_a_place_on_one_machine() -> None:
    place = re.compile("|".join(f"/{name}/" for name in ("work", "tmp", "root", "home", "Users")))
    hits = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in texts()
        if "__pycache__" not in path.parts
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if place.search(line)
    ]
    assert not hits


# The table of the study


def study_table() -> ModuleType:
    return load_script("study_table")


def row(table: str, backbone: str, short: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{table}-{backbone}",
        "table": table,
        "label": backbone.title(),
        "backbone": backbone,
        "transfer": "last",
        "mode": "cached",
        "pruned": True,
        "epochs": 10,
        "weights_short": short,
        "weights_complete": not short,
        "val_log_loss": 1.5,
        "val_top1_error": 0.25,
        "val_top1_error_interval": [0.2, 0.3],
        "val_top1_error_all_classes": 0.4,
        "val_top1_error_all_classes_interval": [0.35, 0.45],
    } | more


STUDY: dict[str, Any] = {
    "finished": True,
    "findings": [{"question": "Does it pay?", "answer": "It does.", "paper": "it does not"}],
    "rows": [
        row("table3", "alexnet", "partly random"),
        row("table3", "densenet121", "random weights"),
        row("table3", "squeezenet1_1", ""),
        row("table2", "alexnet", "partly random", pruned=False),
        row("figure4", "alexnet", "", transfer="scratch"),
        row("ensemble", "a+b", "some members have random weights", mode="ensemble"),
        row("test", "squeezenet1_1", ""),
    ],
    "data": {
        "name": "wild74",
        "photos": 4337,
        "classes": 74,
        "split": {"way": "stratified", "seed": 0, "train": 3469, "val": 435, "test": 433},
        "prune_below": 30,
        "kept_classes": 60,
    },
}


def test_the_table_of_a_study_shows_both_errors_the_weights_and_the_paper() -> None:
    text = study_table().render(STUDY)
    errors = "0.250 (0.200 to 0.300) | 0.400 (0.350 to 0.450)"
    for line in (
        f"| Alexnet (`alexnet`) | partly random | {errors} | 0.86 | `table3-alexnet` |",
        f"| Densenet121 (`densenet121`) | random | {errors} | 0.71 | `table3-densenet121` |",
        f"| Squeezenet1_1 (`squeezenet1_1`) | complete | {errors} | 0.80 | `table3-squeezenet1_1` |",
    ):
        assert line in text.splitlines()
    others = [line.split(" | ") for line in text.splitlines() if " epochs | " in line]
    assert [(cells[0], cells[2], cells[-2]) for cells in others] == [
        ("| Table 2", "partly random", "0.88"),
        ("| Figure 4", "random (meant)", "a curve"),
        ("| test photos", "complete", "0.69 (ResNeXt)"),
        ("| future work", "some members (partly) random", "not run"),
    ]
    assert "- Does it pay? It does." in text
    assert "Network" not in study_table().render(STUDY, first=False)
    assert "4,337 photos of 74 classes; 3,469 training, 435 validation and 433 test" in text
    assert "This study is not finished." not in text
    assert "This study is not finished." in study_table().render(STUDY | {"finished": False})


def test_the_document_shows_the_recorded_studies() -> None:
    studies = json.loads(read("docs/paper.json"))["studies"]
    assert study_table().filled(read(PAPER), studies, PAPER) == read(PAPER)


def test_the_table_goes_between_the_two_comments_of_the_document() -> None:
    document = read(PAPER)
    filled = study_table().fill(document, "TEXT\n", PAPER)
    assert "<!-- study:begin -->\n\nTEXT\n\n<!-- study:end -->" in filled
    assert study_table().fill(filled, "TEXT\n", PAPER) == filled
    assert filled.partition("<!-- study:begin -->")[0] == document.partition("<!-- study:begin -->")[0]
    for broken in ("", "<!-- study:end --> <!-- study:begin -->", document * 2):
        with pytest.raises(InputError, match=r"paper\.md"):
            study_table().fill(broken, "TEXT", PAPER)


def test_the_tables_of_what_pays_hold_every_row_and_call_a_tie_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("better_table")
    band = {"classes": 1, "photos": 9, "error": 0.5, "interval": [0.25, 0.75]}
    one = row("tail", "a", "") | {"id": "a", "part": "cross", "photos": 9, "giga_macs": 1.0}
    one |= {"bands": dict.fromkeys(("tail", "medium", "head"), band), "photo_ms": None}
    one |= {"val_macro_error": 0.4, "val_macro_error_interval": [0.3, 0.5]}
    compared = {"row": "b", "value": -0.1, "interval": [-0.2, 0.1], "tie": True}
    study = {**STUDY, "rows": [one, one | {"id": "b", "label": "B"}], "command": "fieldmark study"}
    study["differences"] = [compared | {"over": over} for over in ("all", "tail")]
    lines = module.table(study, "tail").splitlines()
    assert "the reference" in lines[2]
    assert "-0.100 (-0.200 to +0.100), a tie" in lines[3]
    assert "0.500 (0.250 to 0.750)" in lines[3]
    ranked = {"backbone": "a", "weights_complete": False, "tie": True, "seconds": 2}
    ranked |= {"ridge": band, "ncm": band, "giga_macs": 1.0}
    agreement = {"networks": 3, "ridge": 1.0, "ncm": 0.5}
    text = module.ranking({"networks": [ranked], "photos": 9, "classes": 2, "agreement": agreement})
    assert "(partly) random | 0.500 (0.250 to 0.750), a tie with the first" in text
    assert "ridge 1.00, class means 0.50" in text
    again = module.passes(one | {"stopped": [{"epochs": 12}, {"epochs": 17}]})
    assert (again, module.passes(one | {"epochs": 3})) == ("14 (12 to 17)", "3")


def test_what_best_tried_is_what_is_kept_beside_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("best_table")
    found = json.loads(read("docs/best.json"))
    assert module.filled(read("docs/better.md"), found, "better") == read("docs/better.md")
    provenance = {**found, "command": "/a/b/train.py train /a/photos --out /c/m"}
    assert module.stored(provenance) == {**found, "command": "fieldmark train photos --out m"}
    tuned = [{**found["tried"][0], "photos": 9, "name": "trained", "taken": True}]
    text = "\n".join(module.lines({**found, "tuned": tuned}))
    assert "On 9 photos; reference: the best option without fine-tuned networks." in text
    assert "| **trained** |" in text


@pytest.mark.parametrize("name", ["better", "finetune"])
def test_the_tables_and_answers_of_a_document_are_those_of_what_is_kept_beside_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("better_table")
    document, kept = read(f"docs/{name}.md"), json.loads(read(f"docs/{name}.json"))
    assert module.filled(document, kept, name) == document
    shown = {row["table"] for row in kept["study"]["rows"]}
    begun = set(re.findall(r"<!-- ([a-z-]+):begin -->", document))
    assert begun - {f"{each}-answer" for each in module.ANSWERED} - {"ranking", "best"} == shown
