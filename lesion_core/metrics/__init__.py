"""Pure functions of arrays: segmentation, classification, calibration, feasibility."""
