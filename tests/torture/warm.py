"""A Python with everything imported, which forks a process for each command that it is given.

It is started with the library of `shim.c` loaded, reads jobs as lines of JSON, and answers each with the exit
code (minus the signal of a process that was killed) and the number of calls that were counted. It has one
thread, and has run nothing of fieldmark's but what reads: templates are compiled, and a network has run. What
a network gives for a batch, and the statistics of a picture, are remembered from runs without a fault; for
another batch (of a run that goes on) they are computed.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import hashlib
import importlib
import json
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.torture.commands import NETWORK

PICTURES = 4  # that a training draws to try its flag on; otherwise there are 80

HEAVY = (
    "numpy scipy.optimize scipy.stats scipy.special polars PIL.Image msgspec simplejpeg onnx onnxruntime "
    "torch jinja2 httpx2 matplotlib.figure fieldmark.cli fieldmark.training fieldmark.curation "
    "fieldmark.inference.export fieldmark.experiments.study"
)


def main() -> None:
    """Run jobs until the input ends."""
    for name in HEAVY.split():
        importlib.import_module(name)
    from fieldmark import models

    models.import_torchvision()
    importlib.import_module("timm")
    _warm_up()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


def _warm_up() -> None:
    """Leave out long work that writes nothing, and do beforehand what every process would do anew.

    Nothing here starts a thread: a process with several cannot be forked.
    """
    import torch

    from fieldmark import models
    from fieldmark.data.synthetic import probe
    from fieldmark.features import image_stats
    from fieldmark.models import timm
    from fieldmark.models.runtime.base import TorchEngine
    from fieldmark.reports import page, plots

    _remember(TorchEngine, "_run", lambda engine, crops: (*engine._trunk.state_dict().values(), crops))
    _remember(image_stats, "measure", lambda crop: (crop,))
    drawn = [probe.draw(number) for number in range(PICTURES)]
    for module, name, other in (
        (probe, "COUNT", PICTURES),  # each is a file of its own, written in the same way
        (probe, "draw", drawn.__getitem__),
        (plots, "_svg", lambda _figure, name, _title: f"<svg>{name}</svg>"),  # half of a training's time
        (plots, "_figure", lambda *_, **__: (_Nothing(), _Nothing())),
        (timm, "architecture", cache(timm.architecture)),
    ):
        setattr(module, name, other)
    for template in ("base", "check", "classifier", "macros", "study"):
        page._environment("en").get_template(f"{template}.html")
    backbone = models.load(NETWORK, weights="random")
    side = backbone.architecture.input_size
    with torch.inference_mode():
        backbone.network.eval()(torch.zeros(2, 3, side, side))
    _settle()


class _Nothing:
    """Takes whatever a figure takes."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *_: object, **__: object) -> _Nothing:
        return self

    def __getitem__(self, _: object) -> _Nothing:
        return self

    def __iter__(self) -> Any:
        return iter((self, self))


_remembered = dict[str, np.ndarray[Any, Any]]()  # what functions gave, by a digest of their arguments


def _remember(owner: Any, name: str, arguments: Callable[..., tuple[Any, ...]]) -> None:
    """Let a function of arrays give what it gave before."""
    real = getattr(owner, name)

    def other(*given: Any) -> Any:
        digest = hashlib.blake2b(name.encode())
        for each in arguments(*given):
            digest.update(np.ascontiguousarray(each))
        if (key := digest.hexdigest()) not in _remembered:
            _remembered[key] = real(*given)
        return _remembered[key].copy()

    setattr(owner, name, other)


def _settle() -> None:
    """Keep the collector away from what there is: a collection in a child would copy it."""
    gc.collect()
    gc.freeze()


def _follow(told: Path) -> None:
    """Import and remember what a process without a fault did, for all that come after it."""
    with np.load(told, allow_pickle=False) as found:
        names, more = str(found["names"]).split(), {key: found[key] for key in found.files if key != "names"}
    new = [name for name in names if name not in sys.modules]
    for name in new:
        with suppress(Exception):  # made while it ran
            importlib.import_module(name)
    if new or more:
        _remembered.update(more)
        _settle()


def _run(job: dict[str, Any]) -> list[int]:
    with open(job["counter"], "wb") as counter:  # noqa: PTH123
        counter.write(bytes(8 + 8192))  # as in shim.c
    if not (child := os.fork()):
        _be_the_command(job)
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):  # what it started, if it was killed
        os.killpg(child, signal.SIGKILL)
    if (told := Path(job["modules"])).exists():
        _follow(told)
        told.unlink()
    with open(job["counter"], "rb") as counter:  # noqa: PTH123
        return [os.waitstatus_to_exitcode(status), struct.unpack("l", counter.read(8))[0]]


def _be_the_command(job: dict[str, Any]) -> None:
    code, known = 1, set(_remembered)
    try:
        os.setsid()
        signal.alarm(job["seconds"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(job["cwd"])
        fault = (job["folder"], job["counter"], job["at"], job["code"], job["lasts"], job["kinds"])
        os.environ |= job["environment"]
        os.environ["FIELDMARK_FAULT"] = "|".join(str(int(x) if isinstance(x, bool) else x) for x in fault)
        sys.argv = ["fieldmark", *job["argv"]]
        from fieldmark import cli

        arm = ctypes.CDLL(None).fault_arm
        arm.argtypes = [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_long,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
        ]
        if arm(job["folder"].encode(), job["counter"].encode(), *fault[2:]):
            raise OSError("the faults could not be set up")
        cli.main()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(bool(leave.code))
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()  # as at the end of an ordinary Python
            sys.stdout.flush()
            sys.stderr.flush()
            if not job["at"]:
                new = {key: each for key, each in _remembered.items() if key not in known}
                with open(job["modules"], "wb") as told:  # noqa: PTH123
                    np.savez(told, names=np.array(" ".join(sys.modules)), **new)
        finally:
            os._exit(code)


if __name__ == "__main__":
    main()
