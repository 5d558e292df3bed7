from .least_steps import BLACK_BOX_BOUND as BLACK_BOX_BOUND
from .least_steps import BOUND as BOUND
from .least_steps import LeastSteps as LeastSteps
from .least_steps import scan_steps as scan_steps
from .least_steps import thinned as thinned
