"""`lesion serve`: a page on this computer to try a trained run on one's own images."""
