"""From a trained run to masks, classes and scores."""
