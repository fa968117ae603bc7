"""What `faults.fuzz` feeds to which parser: good files, bombs, and one reading.

A target makes the files of one input from a generator of chance, and reads them as neocog reads
what users bring. Reading ends well or with `NeocogError`; anything else is a finding.
"""

from faults.targets import archives, pictures, sets, written
from faults.targets.target import Files, Target

__all__ = ["TARGETS", "Files", "Target"]

TARGETS: dict[str, Target] = pictures.TARGETS | sets.TARGETS | archives.TARGETS | written.TARGETS
"""Every parser that reads what users bring."""
