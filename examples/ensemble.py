"""Train an ensemble of two networks, and compare it with its first member on the same photos.

python ensemble.py PHOTOS NETWORK NETWORK
"""

import sys

from fieldmark import TrainConfig, load_dataset, train

photos, first, second = sys.argv[1:]
dataset = load_dataset(photos, test=0.25)
one = train(dataset, TrainConfig(backbone=first))
both = train(dataset, TrainConfig(backbone=first, also=(second,)))
for name, trained in ((first, one), (f"{first} + {second}", both)):
    error, loss = trained.summary["top1_error"], trained.summary["log_loss"]
    print(f"{name}: top-1 error {error:.1%}, log-loss {loss:.3f}")
for member in both.classifier.members:
    print(f"  weight {member.weight:.2f}: {member.name}")
