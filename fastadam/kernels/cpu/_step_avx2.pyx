# The loops of _step.pyx, compiled for AVX2 (see setup.py for the flags).

include "_step.pyx"
