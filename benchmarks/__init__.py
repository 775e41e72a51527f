"""Benchmarks against the tools that a user would take instead: see README.md in this folder."""

from __future__ import annotations

BENCHMARKS: dict[str, str] = {
    "table3": "The whole of Table 3: five networks, frozen, 10 epochs",
    "decode": "Photo bytes to crop, on one thread",
    "engines": "Crops to features, one network at a time",
    "tiers": "int8 beside float32: speed, and what becomes of the error",
    "pipeline": "Photos to features, decoding included",
    "heads": "Features to a trained last layer",
    "finetune": "A step of fine-tuning all layers",
    "heads_many": "A last layer for very many classes",
    "cluster": "Shards over a Ray cluster",
    "memory": "Memory by number of photos",
    "store": "Features to disk and back",
    "tables": "Index, count, split and prune annotations",
    "cold_start": "From start to the first answer",
    "predict": "A folder of photos to answers",
    "serve": "The HTTP server compared with the bare engine, and overloaded",
    "gpu": "The same on a GPU",
    "hardware": "Limits of the machine, and the share that each stage reaches",
    "labels": "Label issues compared with cleanlab, and memory",
    "errors": "Errors compared with the reference",
    "few": "Few photos a class, and what is promised of fresh ones",
    "unknown": "Photos of none of the classes",
    "stations": "Camera-trap stations: boxes, events and the prior",
    "places": "Priors of places and times, and lists of species",
    "next": "What to label next, compared with random choice",
    "wall": "The wall of 50,000 answers in Chromium",
    "findings": "Findings on photos and copies damaged on purpose",
}
"""Name and title of each benchmark, a module of this folder, in the order of running and showing."""

LONG = (
    "heads",
    "labels",
    "errors",
    "few",
    "unknown",
    "findings",
    "stations",
    "places",
    "next",
    "wall",
    "cluster",
    "memory",
    "heads_many",
    "tiers",
)
"""Run only when named: they take minutes, and their results rarely change."""
