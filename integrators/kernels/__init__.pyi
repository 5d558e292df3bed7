from .fallback import philox as philox
from .machine_code import compiled as compiled
from .machine_code import compiled_sum as compiled_sum
from .threads import split_rows as split_rows
from .tiers import Draw as Draw
from .tiers import kernels_for as kernels_for
from .tiers import tiers_in_use as tiers_in_use
