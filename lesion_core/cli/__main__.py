"""``python -m lesion_core.cli``: the same as ``lesion``."""

from lesion_core.cli import main

main()
