"""The command line: a verb each, parse -> config -> one call.

Nothing heavy is imported before a verb is chosen, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldmark import __version__, progress
from fieldmark.errors import FieldmarkError, InputError
from fieldmark.serve.command import serve

app = typer.Typer(
    name="fieldmark",
    help="From labelled photos of living things to a species classifier, honestly measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


class SplitWay(StrEnum):
    """How photos are divided."""

    stratified = "stratified"
    random = "random"
    official = "official"


class OutputFormat(StrEnum):
    """What `predict` prints."""

    text = "text"
    csv = "csv"
    jsonl = "jsonl"


class EngineName(StrEnum):
    """What runs the networks."""

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    cuda = "cuda"


class DecodingTier(StrEnum):
    """How photos are decoded."""

    exact = "exact"
    fast = "fast"


class TransferMode(StrEnum):
    """Which layers are trained, and from which weights."""

    last = "last"
    all = "all"
    scratch = "scratch"


WeightsDir = Annotated[
    Path | None,
    typer.Option(help="A folder of weights, looked into before anything is downloaded."),
]
Limit = Annotated[int | None, typer.Option(help="Use at most so many photos.", min=1)]
Seed = Annotated[int, typer.Option(help="Of the split and of the order of training.")]
SplitOption = Annotated[
    SplitWay, typer.Option(help="Divide by class, plainly at random, or as the source says.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Where features and converted networks are kept between runs.")
]
EngineOption = Annotated[
    EngineName, typer.Option(help="What runs the networks; auto measures which is fastest here.")
]
TierOption = Annotated[
    DecodingTier, typer.Option(help="Decode photos in full, or large ones at a part of their size.")
]
SourceOption = Annotated[
    str | None, typer.Option(help="The layout of the photos; by default it is recognised.")
]


def version(value: bool) -> None:
    """Print the version and leave."""
    if value:
        typer.echo(f"fieldmark {__version__}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for all verbs."""


@app.command()
def index(
    photos: Annotated[Path, typer.Argument(help="Photos in any layout, or an annotation file.")],
    out: Annotated[Path, typer.Option(help="The Parquet table to write.")] = Path("photos.parquet"),
    source: SourceOption = None,
    verify: Annotated[bool, typer.Option(help="Look at every file.")] = True,
) -> None:
    """Read photos as they lie into a table with a row for each, kept or rejected."""
    from fieldmark import sources

    table = sources.read(photos, source=source, verify=verify)
    table.write(out)
    kept = table.kept.height
    typer.echo(f"{len(table):,} photos found = {kept:,} kept + {len(table) - kept:,} rejected")
    for reason, count in table.reasons().items():
        typer.echo(f"  {count:,} {reason}")
    typer.echo(f"{len(table.taxonomy):,} taxa; written to {out}")


@app.command()
def stats(
    data: Annotated[Path, typer.Argument(help="Photos, annotations, or a table of `index`.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    source: SourceOption = None,
) -> None:
    """Count photos and classes: the paper's Table 1 and Figure 1."""
    from fieldmark import files, sources
    from fieldmark import stats as counting

    found = counting.stats(sources.read(data, source=source, verify=False))
    typer.echo(files.to_json(found).rstrip() if json else counting.render(found))


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="Photos, annotations, or a table of `index`.")],
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    val: Annotated[float, typer.Option(help="The share to validate on.")] = 0.1,
    test: Annotated[float, typer.Option(help="The share to test on.")] = 0.0,
    way: SplitOption = SplitWay.stratified,
    seed: Seed = 0,
    prune_below: Annotated[int, typer.Option(help="Say which classes have fewer photos.")] = 100,
) -> None:
    """Divide photos into train, val and test; say what pruning would drop."""
    from fieldmark import sources
    from fieldmark.split import PARTS, prune, split_photos

    table = sources.read(data, verify=False)
    drawn = split_photos(table, val=val, test=test, seed=seed, way=way.value)
    for part in PARTS:
        typer.echo(f"{part:<6}{len(drawn.ids(part)):>10,} photos")
    labels = drawn.rows(table, "train")["taxon_id"]
    try:
        dropped = set(labels) - set(prune(drawn, table, prune_below))
    except InputError as error:  # a small collection: nothing to stop for
        typer.echo(f"pruned below {prune_below}: nothing is left. {error}")
    else:
        photos = int(labels.is_in(list(dropped)).sum())
        typer.echo(
            f"pruned below {prune_below}: {len(dropped):,} classes with {photos:,} train photos"
        )
    typer.echo(f"digest {drawn.digest}")
    if out is not None:
        drawn.write(out)
        typer.echo(f"written to {out}")


@app.command()
def train(
    photos: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the classifier to.")],
    backbone: Annotated[
        str, typer.Option(help="The network; any name of timm's works too.")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    weights_dir: WeightsDir = None,
    transfer: Annotated[
        TransferMode, typer.Option(help="Train the last layer, all layers, or from scratch.")
    ] = TransferMode.last,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the photos; by default as many as it takes for the last layer, else 10.",
            min=1,
        ),
    ] = None,
    split_way: Annotated[
        SplitWay,
        typer.Option("--split", help="By class, plainly at random, or as the source says."),
    ] = SplitWay.stratified,
    precision: Annotated[
        float,
        typer.Option(
            help='The share of given answers to be right; else "not sure".', min=0.0, max=1.0
        ),
    ] = 0.95,
    limit: Limit = None,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep small pictures of training photos as well.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Make a classifier from labelled photos, and measure honestly how good it is."""
    _cache(cache)
    from fieldmark.train import TrainConfig, sentence
    from fieldmark.train import train as run

    config = TrainConfig(
        backbone=backbone,
        weights=weights,
        weights_dir=weights_dir,
        transfer=transfer.value,
        epochs=epochs,
        split=split_way.value,
        precision=precision,
        limit=limit,
        seed=seed,
        engine=engine.value,
        tier=tier.value,
        thumbnails=thumbnails,
    )
    trained = run(photos, out, config, command=_typed())
    typer.echo(sentence(trained.summary))
    typer.echo(f"Classifier: {out}")
    typer.echo(f"Report:     {out / 'report.html'}")
    typer.echo(f"Try it:     fieldmark predict {shlex.quote(str(out))} PHOTO")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos, folders, patterns, @lists, - or an annotation file."),
    ] = None,
    listed: Annotated[
        list[str] | None,
        typer.Option("--list", help="A file with the path of a photo a line; - is standard input."),
    ] = None,
    only: Annotated[
        Path | None, typer.Option(help="A file of species, one a line: all others are left out.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many labels for each photo.", min=1)] = 5,
    format: Annotated[OutputFormat, typer.Option(help="What to print.")] = OutputFormat.text,
    out: Annotated[
        Path | None,
        typer.Option(help="Write .csv, .jsonl or .parquet; the same command goes on with it."),
    ] = None,
    wide: Annotated[
        bool,
        typer.Option("--wide", help="A row a photo and a column a label, for CSV and Parquet."),
    ] = False,
    submission: Annotated[
        Path | None, typer.Option(help="Write the challenge's id,predicted file.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Name what is in photos: labels sorted by confidence."""
    _cache(cache)
    from fieldmark import predict as naming
    from fieldmark.classifier import Classifier

    if wide and out is None and format is not OutputFormat.csv:
        raise InputError("--wide is a column a label: add --format csv, or --out with .csv.")
    classifier = Classifier.load(model)
    if only is not None:
        known = len(classifier.taxa)
        classifier = classifier.only(naming.species_in(only))
        progress.say(
            f"Only {len(classifier.taxa):,} of {known:,} labels are possible ({only}): the scores "
            "are shared out among them."
        )
    items = [
        *naming.items_of(photos or ()),
        *(i for each in listed or () for i in naming.listed(each)),
    ]
    if not items:
        raise InputError("No photo is named: name photos or folders, or a list with --list.")
    if submission is not None:
        naming.check_submission(items)
        every = list(naming.with_progress(naming.predict(classifier, items, top), len(items)))
        naming.write_submission(submission, every, classifier)
        typer.echo(f"{len(every):,} rows written to {submission}")
        return
    if out is not None:
        rejected = naming.to_file(out, classifier, items, top=top, wide=wide)
        typer.echo(f"Written: {out}")
    else:
        results = naming.with_progress(naming.predict(classifier, items, top), len(items))
        counted = naming.Counted(results)
        for line in naming.lines(format.value, counted, classifier.taxonomy, wide=wide):
            typer.echo(line)
        rejected = counted.rejected
    if rejected:
        raise InputError(f"{rejected:,} of {len(items):,} photos could not be used; each says why.")


@app.command()
def study(
    recipe: Annotated[str, typer.Argument(help="`paper`, or a Python file of your own.")],
    data: Annotated[Path, typer.Argument(help="Labelled photos in any layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write the study to.")],
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    epochs: Annotated[int, typer.Option(help="Passes over the photos.", min=1)] = 10,
    long_epochs: Annotated[int, typer.Option(help='For "more than 10 epochs".', min=1)] = 100,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this table; may be given more than once.")
    ] = None,
    prune_below: Annotated[
        int | None, typer.Option(help="Prune classes with fewer training photos.", min=1)
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out networks without weights.")
    ] = False,
    split_way: Annotated[
        SplitWay,
        typer.Option("--split", help="By class, plainly at random, or as the source says."),
    ] = SplitWay.stratified,
    test: Annotated[float, typer.Option(help="The share to test on.")] = 0.1,
    bfloat16: Annotated[
        bool,
        typer.Option("--bfloat16", help="Train all layers in half precision: faster on new cores."),
    ] = False,
    seed: Seed = 0,
    engine: EngineOption = EngineName.auto,
    tier: TierOption = DecodingTier.exact,
    cache: Cache = None,
) -> None:
    """Compare networks and ways of training on your photos: the paper's study, or your own."""
    _cache(cache)
    from fieldmark import recipes
    from fieldmark.study import StudyConfig
    from fieldmark.study import study as run

    options = recipes.Options(epochs=epochs, long_epochs=long_epochs, seed=seed)
    config = StudyConfig(
        options=options,
        only=tuple(only or ()),
        limit=limit,
        weights_dir=weights_dir,
        skip_missing=skip_missing,
        prune_below=prune_below,
        split=split_way.value,
        test=test,
        engine=engine.value,
        tier=tier.value,
        precision="bfloat16" if bfloat16 else "float32",
    )
    found = run(data, out, recipes.find(recipe)(options), config, command=_typed())
    typer.echo(f"{len(found['rows'])} rows in {progress.seconds(found['seconds'])}")
    typer.echo(f"Numbers: {out / 'study.json'}")
    typer.echo(f"Report:  {out / 'report.html'}")


app.command()(serve)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to work in.")] = Path("demo"),
    species: Annotated[int, typer.Option(help="How many species to draw.", min=4)] = 48,
    photos: Annotated[int, typer.Option(help="How many photos to draw.", min=40)] = 1100,
    cache: Cache = None,
) -> None:
    """Draw a field guide of invented butterflies, train on it, and look at the result."""
    _cache(cache)
    from fieldmark.demo import run

    run(out, species=species, photos=photos, command=_typed())


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    photo: Annotated[Path, typer.Argument(help="The photo to explain.")],
    out: Annotated[Path, typer.Option(help="The PNG picture to write.")],
    label: Annotated[
        str | None,
        typer.Option(help="Show what speaks for this class: its id or scientific name."),
    ] = None,
    cache: Cache = None,
) -> None:
    """Show why a photo got its label: where the network looked, and similar training photos."""
    _cache(cache)
    from fieldmark import explain as explaining

    found = explaining.run(model, photo, out, label)
    for answer in found.prediction.answers:
        typer.echo(f"  {answer.score:6.1%}  {answer.taxon.label}")
    if found.heat is None:
        typer.echo("No heat map: the network is not convolutional.")
    if not found.neighbours:
        typer.echo("No similar photos: the classifier's folder keeps none.")
    typer.echo(f"Written: {out}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute the network in 8 bits, and say what it costs.")
    ] = False,
    check: Annotated[
        list[Path] | None,
        typer.Option(help="Photos or folders to check the file on; may be given more than once."),
    ] = None,
    cache: Cache = None,
) -> None:
    """Write a classifier as one ONNX file with preprocessing and calibration inside."""
    _cache(cache)
    from fieldmark import export as exporting

    written = exporting.run(model, onnx, check or (), int8=int8)
    typer.echo(f"In single precision: {written.parity}")
    if written.loss is not None:
        typer.echo(f"In 8 bits, on photos it was not calibrated on: {written.loss}")
    typer.echo(f"Written: {written.path} ({written.size / 1e6:,.1f} MB)")


def _cache(folder: Path | None) -> None:
    if folder is not None:
        os.environ["FIELDMARK_CACHE"] = str(folder.resolve())


def _typed() -> str:
    """What was typed, for the page: the program's name without its folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2, Ctrl-C leaves cleanly."""
    try:
        app()
    except FieldmarkError as error:
        progress.say(f"fieldmark: {error}")
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, SystemExit) as leave:
        # Typer turns Ctrl-C into this exit code by itself, without a word.
        if isinstance(leave, SystemExit) and leave.code != EXIT_INTERRUPTED:
            raise
        progress.say("fieldmark: stopped; what was done is kept, run the same command to go on.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has seen enough (`fieldmark predict … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
