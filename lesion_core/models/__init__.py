"""Networks: SAM and its adapters, baselines, fusion classifiers. Knows no file layout."""
