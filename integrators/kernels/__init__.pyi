from .fallback import philox as philox
from .tiers import Draw as Draw
from .tiers import kernels_for as kernels_for
from .tiers import tiers_in_use as tiers_in_use
