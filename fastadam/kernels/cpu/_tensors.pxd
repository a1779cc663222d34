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
    Py_ssize_t first_op   # the program of operations that makes the gradient of the step: its
    Py_ssize_t n_ops      # first row in the table of operations, and how many there are
    Py_ssize_t step       # whether the step follows
    size_t out            # where the program's gradient is written, stored as g is; 0 for nowhere
    size_t half           # the half-precision parameter that p is the float32 master of, or 0
    Py_ssize_t half_type  # a Stored
    size_t walk           # a Walk, where any of p, g and the streams has no layout of the others


# How the arrays of a row are walked together that share no dense layout: in the order in which p
# lies, along the fewest axes that will do. What is apart is brought into a room of its own, chunk
# by chunk. All by their place among the first fields of the row.
cdef enum:
    WALKED_G = 1
    N_WALKED = FIRST_STREAM + N_STREAMS
    MOST_AXES = 64        # that NumPy has


cdef struct Walk:
    Py_ssize_t ndim       # 1 at least
    Py_ssize_t shape[MOST_AXES]
    Py_ssize_t strides[N_WALKED][MOST_AXES]     # in bytes
    Py_ssize_t size[N_WALKED]                   # bytes of an element; 0 without an array
    bint apart[N_WALKED]


# What an operation does to a gradient, in the type of the computation; ops.py spells the same.
cdef enum OpKind:
    DIVIDE                # g = g / a, the true gradient: subnormal float32 flushed before and after
    ADD                   # g = (g + a * p) * b
    ADD_SIGN              # g = g + a * sign(p)
    CLIP                  # g = clip(g, a, b)
    MULTIPLY              # g = g * b
    ROUND                 # to the half type that g is stored in, if it is one, and back


# One row of the table of operations; ops.py spells it for NumPy. Its numbers are rounded once, to
# the type of the computation. Where p is a float32 master, operations see the half-precision
# parameter, as hooks do.
cdef struct Op:
    Py_ssize_t kind       # an OpKind
    double a
    double b


cdef inline const Op* program(const Op[::1] ops) noexcept:
    """Where a table of operations begins; of None, or of none, nowhere."""
    if ops is None or ops.shape[0] == 0:
        return NULL
    return &ops[0]


# One row of the table of gradients whose squares are summed; gradient_table.py spells it for NumPy.
# They are divided by a scale, or a program is applied, which writes nothing.
cdef struct Gradient:
    size_t g
    size_t out            # where the unscaled gradient is written, 0 for nowhere
    double scale          # 0 for none
    Py_ssize_t n          # elements
    Py_ssize_t start      # groups of chunks of the gradients before this one
    Py_ssize_t g_type     # a Stored
    size_t p              # what operations read beside g
    Py_ssize_t p_type     # a Stored
    Py_ssize_t first_op
    Py_ssize_t n_ops


# How the elements of a parameter or gradient are stored; dtypes.py spells the same, but the last.
cdef enum Stored:
    COMPUTING             # in the type of the computation: float32 or float64
    FLOAT16
    BFLOAT16
    WIDE                  # float64, of a gradient whose step is computed in float32
