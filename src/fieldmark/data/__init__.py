"""Photos, labels and splits: reading, checking, dividing and transforming them."""
