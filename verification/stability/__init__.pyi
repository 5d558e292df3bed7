from .fewest_steps import BLACK_BOX_BOUND as BLACK_BOX_BOUND
from .fewest_steps import BOUND as BOUND
from .fewest_steps import LeastSteps as LeastSteps
from .fewest_steps import least_steps as least_steps
from .fewest_steps import scan_steps as scan_steps
from .fewest_steps import thinned as thinned
from .regions import last_step_excess as last_step_excess
from .regions import worst_excess as worst_excess
