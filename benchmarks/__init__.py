"""What fieldmark costs, beside what a user would pick instead: see README.md in this folder."""

from __future__ import annotations

BENCHMARKS: dict[str, str] = {
    "table3": "The whole of Table 3: five networks, frozen, 10 epochs",
    "decode": "Photo bytes to crop, on one thread",
    "engines": "Crops to features, one network at a time",
    "pipeline": "Photos to features, decoding included",
    "heads": "Features to a trained last layer",
    "finetune": "A step of fine-tuning all layers",
    "heads_many": "A last layer for very many classes",
    "cluster": "Shards over a Ray cluster",
    "memory": "Memory against photos",
    "store": "Features to disk and back",
    "tables": "Index, count, split and prune annotations",
    "cold_start": "From nothing to the first answer",
    "serve": "The HTTP server, beside the bare engine and overloaded",
    "gpu": "The same on a GPU, where there is one",
    "hardware": "What the machine can do at most, and how near each stage comes",
    "labels": "Wrong labels found beside cleanlab, and in how much memory",
    "errors": "Whether speed is bought with errors",
    "findings": "What is found of photos and copies spoilt on purpose",
}
"""Each is the module of that name in this folder; in the order in which they are run and shown."""

LONG = ("heads", "labels", "errors", "findings", "cluster", "memory", "heads_many")
"""Run only when named: they take minutes, and hardly change from day to day."""
