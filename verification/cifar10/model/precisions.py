"""The precisions that a network's products may have, without torch: the command line names them, too.

From the finest to the coarsest. What each rounds, and where: `machine.products`.
"""

from __future__ import annotations

FLOAT32, TF32, BFLOAT16 = PRECISIONS = ("float32", "tf32", "bfloat16")
