"""The study of schemes on a network: its samples, what they say, and how that was predicted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
