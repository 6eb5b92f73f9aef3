"""What runs of tests see: one folder of pixels and split tables."""

HOME = "shared/leak_free"
SHARES = {"seed": 1, "train": 0.7, "val": 0.1, "test": 0.2}
MATERIAL = {"pixels": HOME, "split_tables": HOME, "splits": {**SHARES, "rule": "leak_free", "datasets": ["ham10000"]}}
