"""Training loops and losses; selection on validation images only."""
