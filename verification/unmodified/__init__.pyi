from .laws import laws_of as laws_of
from .transcript import transcribe as transcribe
