# Which of NumPy's arrays the loops can walk together, and where these lie.

cimport numpy as cnp

from fastadam.kernels.cpu._tensors cimport Tensor

cdef bint dense(cnp.ndarray a) noexcept
cdef bint masked(object array) noexcept
cdef size_t pointer(object array, int wanted, cnp.ndarray p, bint written) noexcept
cdef Py_ssize_t stored(int type_number, int computing, int bfloat16) noexcept
cdef bint has_loop(Tensor* tensor, object array, int computing, int bfloat16) noexcept
cdef size_t gradient(Tensor* tensor, object array, int computing, int bfloat16, cnp.ndarray p)
cdef size_t half_pointer(object array, cnp.ndarray master, int bfloat16) noexcept
cdef size_t* streams(Tensor* row) noexcept
cdef bint describe_state(
    Tensor* row, tuple state, object flags, int computing, cnp.ndarray p
) except -1
cdef bint same_shape(cnp.ndarray a, cnp.ndarray p) noexcept
cdef bint convertible(object grad, cnp.ndarray p, int bfloat16) noexcept
