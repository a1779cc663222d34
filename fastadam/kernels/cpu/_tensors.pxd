cimport numpy as cnp

# One row of the descriptor table: where a parameter's arrays lie and which numbers drive its step.
# Every field is eight bytes wide, so the row has no padding on any 64-bit machine; table.py derives
# the same row, as a NumPy dtype, from the table of algorithms. `layout` tells a test what is here.


cdef enum:
    FIRST_STREAM = 2      # the algorithm's streams stand behind p and g, in their order
    N_STREAMS = 3


# The columns of the table of coefficients, which are adam.Coefficients' first fields; the flags are
# its last.
cdef enum:
    ALPHA_T
    ONE_MINUS_BETA1
    ONE_MINUS_BETA2
    EPS
    ETA
    ONE_MINUS_DECAY
    LOWER
    UPPER
    N_COEFFICIENTS
    AMSGRAD = N_COEFFICIENTS
    ADABOUND


cdef struct Tensor:
    size_t p
    size_t g
    size_t m
    size_t v
    size_t vhat           # 0 without AMSGrad
    Py_ssize_t n          # elements
    Py_ssize_t start      # elements of the tensors before this one
    Py_ssize_t row        # this tensor's row in the table of coefficients
    Py_ssize_t amsgrad
    Py_ssize_t adabound
    Py_ssize_t p_type     # a Stored
    Py_ssize_t g_type     # a Stored
    Py_ssize_t prepare    # a Prepare
    double scale          # what g is divided by, 0 for nothing,
    double rate           # and then multiplied with, where it is prepared
    size_t half           # the half-precision parameter that p is the float32 master of, or 0
    Py_ssize_t half_type  # a Stored
    Py_ssize_t change     # a Change: the step, or what a hook does to g


# What is done to a gradient before the step; table.py spells the same.
cdef enum Prepare:
    AS_IT_IS
    PREPARED              # g / scale * rate, which is seen by the step alone
    WRITTEN               # the same, and written in the place of g


# What is done to a tensor; table.py spells the same. The numbers a and b of the hooks' changes are
# the first two in the row of coefficients.
cdef enum Change:
    STEP                  # the step of the Adam family
    ADD                   # g = (g + a * p) * b
    ADD_SIGN              # g = g + a * sign(p)
    CLIP                  # g = clip(g, a, b)
    MULTIPLY              # g = g * b


# One row of the table of gradients whose squares are summed; gradient_table.py spells it for NumPy.
cdef struct Gradient:
    size_t g
    size_t out            # where the unscaled gradient is written, 0 for nowhere
    double scale
    Py_ssize_t n          # elements
    Py_ssize_t start      # groups of chunks of the gradients before this one
    Py_ssize_t g_type     # a Stored


# How the elements of a parameter or gradient are stored; dtypes.py spells the same.
cdef enum Stored:
    COMPUTING             # in the type of the computation: float32 or float64
    FLOAT16
    BFLOAT16


# Whether and how an array can be walked, for those who fill a row by themselves.
cdef bint dense(cnp.ndarray a) noexcept
cdef size_t pointer(object array, int wanted, cnp.ndarray p, bint written) noexcept
cdef Py_ssize_t stored(int type_number, int computing, int bfloat16) noexcept
cdef size_t gradient(Tensor* tensor, object array, int computing, int bfloat16, cnp.ndarray p)
cdef bint describe_state(
    Tensor* row, tuple state, object flags, int computing, cnp.ndarray p
) except -1
