"""Set before torch is imported: threads that spin at barriers slow every other test process on the machine."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
