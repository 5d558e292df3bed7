from .laws import Data as Data
from .laws import laws_of as laws_of
from .study import STEPS as STEPS
from .study import UnmodifiedStudy as UnmodifiedStudy
from .study import study_unmodified as study_unmodified
from .transcript import Transcript as Transcript
from .transcript import transcribe as transcribe
