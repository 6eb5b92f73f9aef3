"""The work behind the pipeline: dermoscopy segmentation and classification, from download to report."""

import os

__version__ = "1.0.0"
# When it is imported, albumentations would ask the internet for its newest version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
