"""The score network on images: its layers, checkpoints, training, data, and the machine it runs on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
