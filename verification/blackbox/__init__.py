"""Anyone's sampler: probed, dissected, studied, kept as a baseline, and broken on purpose."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
