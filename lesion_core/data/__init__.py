"""Datasets: download, catalog, splits, harmonized pixels. Knows no model."""
