# The loops of _cpu.pyx, compiled for AVX-512 (see setup.py for the flags).

include "_step.pyx"
