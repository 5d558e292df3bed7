"""Noise and the updates of a run, computed in three ways: compiled for a CPU, for a GPU, and by operators of torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
