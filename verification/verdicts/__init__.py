"""How a verdict follows from errors, exact or sampled: fits, limits, error bars, and the rules."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
