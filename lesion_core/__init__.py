"""The work behind the pipeline: dermoscopy segmentation and classification, from download to report."""

__version__ = "0.1.0"
