"""Growth: how large a step a scheme survives, how few steps a run, and what breaks first."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
