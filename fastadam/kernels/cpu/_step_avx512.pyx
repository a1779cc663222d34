# The loops of _step.pyx, compiled for AVX-512 (see setup.py for the flags).

include "_step.pyx"
