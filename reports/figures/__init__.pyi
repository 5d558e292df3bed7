from .cifar10_figures import cells as cells
from .cifar10_figures import measured as measured
from .cifar10_figures import names as names
from .functions import MIXTURE as MIXTURE
from .functions import SAMPLED_FUNCTIONS as SAMPLED_FUNCTIONS
from .style import as_svg as as_svg
from .survey import distances as distances
