"""Faults on purpose: kills, full disks, power cuts, flipped bits. `python -m faults` runs them all.

Nothing here is part of the package. Each module can be run by itself and says with its exit code
whether anything was found; `planted` shows that each of them can find something.
"""

import os

ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One thread everywhere. A process that is to be forked must have no others, and libraries start
theirs when they are loaded, so this stands here."""
os.environ.update(ALONE)
