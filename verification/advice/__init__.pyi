from .budget import KINDS as KINDS
from .budget import NETWORK as NETWORK
from .budget import Budget as Budget
from .budget import budget_of as budget_of
from .budget_leading import leading_errors as leading_errors
from .budget_measures import Measure as Measure
from .budget_measures import OnGaussian as OnGaussian
from .budget_measures import OnSpectrum as OnSpectrum
