"""Saliency maps and how well they point."""
