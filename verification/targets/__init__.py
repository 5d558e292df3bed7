"""Data whose score is known exactly: Gaussians, mixtures, real images; by name, `make_target`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
