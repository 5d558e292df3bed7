"""Laws without noise: exact moments, orders, predictions, CIFAR-10's spectrum, laws on a lattice."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
