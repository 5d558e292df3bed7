"""From verdicts to advice: where a scheme's error comes from, which settings to run, which words to run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
