# Steps of arrays that share no dense layout. What is apart is brought into dense rooms, a chunk at
# a time that stays in the cache, stepped there by the same loops, and what was written is put back.
# Elements are copied as they are stored, from and to any address.

cdef extern from *:
    """
    #include <stdint.h>
    typedef uint16_t __attribute__((aligned(1), may_alias)) fastadam_item2;
    typedef uint32_t __attribute__((aligned(1), may_alias)) fastadam_item4;
    typedef uint64_t __attribute__((aligned(1), may_alias)) fastadam_item8;
    """
    ctypedef unsigned short fastadam_item2
    ctypedef unsigned int fastadam_item4
    ctypedef unsigned long long fastadam_item8

ctypedef fused item:
    fastadam_item2
    fastadam_item4
    fastadam_item8

cdef enum:
    ROOM = 65536            # bytes that are brought together at once, of all arrays
    FEW = 512               # elements at once where none lies across: they stay in the first cache
    TILE = 16               # rows that share a line of the cache where they lie across
    AHEAD = 32              # columns of them that are asked for meanwhile


cdef inline void copy_row(
    char* array, Py_ssize_t stride, item* room, Py_ssize_t n, bint back
) noexcept nogil:
    """Copy n elements that lie evenly into a room, or back."""
    cdef Py_ssize_t i = 0
    cdef item* dense = <item*> array
    if stride == <Py_ssize_t> sizeof(item):
        if back:
            memcpy(array, room, n * sizeof(item))
        else:
            memcpy(room, array, n * sizeof(item))
    elif back:
        # four at once, or counting takes as long as copying
        while i + 4 <= n:
            (<item*> array)[0] = room[i]
            (<item*> (array + stride))[0] = room[i + 1]
            (<item*> (array + 2 * stride))[0] = room[i + 2]
            (<item*> (array + 3 * stride))[0] = room[i + 3]
            array += 4 * stride
            i += 4
        while i < n:
            (<item*> array)[0] = room[i]
            array += stride
            i += 1
    elif not stride:
        for i in range(n):
            room[i] = dense[0]
    elif stride == 2 * <Py_ssize_t> sizeof(item):
        for i in range(n):
            room[i] = dense[2 * i]
    else:
        while i + 4 <= n:
            room[i] = (<item*> array)[0]
            room[i + 1] = (<item*> (array + stride))[0]
            room[i + 2] = (<item*> (array + 2 * stride))[0]
            room[i + 3] = (<item*> (array + 3 * stride))[0]
            array += 4 * stride
            i += 4
        while i < n:
            room[i] = (<item*> array)[0]
            array += stride
            i += 1


cdef inline void copy_across(
    char* array,
    Py_ssize_t row_stride,
    Py_ssize_t stride,
    item* room,
    Py_ssize_t n_rows,
    Py_ssize_t n,
    bint back,
) noexcept nogil:
    """Copy rows of n elements each, which lie across: the rows' neighbours share lines."""
    cdef Py_ssize_t row, i, some
    cdef char* column
    while n_rows:
        some = min(n_rows, <Py_ssize_t> TILE)
        column = array
        for i in range(n):
            # no processor foresees these; the rows begin in one line and end in the next
            fastadam_prefetch(column + AHEAD * stride)
            fastadam_prefetch(column + AHEAD * stride + (some - 1) * row_stride)
            for row in range(some):
                if back:
                    (<item*> (column + row * row_stride))[0] = room[row * n + i]
                else:
                    room[row * n + i] = (<item*> (column + row * row_stride))[0]
            column += stride
        array += some * row_stride
        room += some * n
        n_rows -= some


cdef inline bint lies_across(const Walk* walk, int k) noexcept nogil:
    """Whether the rows of an array are nearer to one another than the elements of a row."""
    cdef Py_ssize_t last = walk.ndim - 1
    if not last or not walk.strides[k][last - 1]:
        # there is one row, or only one is broadcast
        return False
    return llabs(walk.strides[k][last]) > llabs(walk.strides[k][last - 1])


cdef called_void copy_items(
    const Walk* walk,
    int k,
    char* array,
    item* room,
    Py_ssize_t first,
    Py_ssize_t n,
    bint back,
) noexcept nogil:
    """Copy the elements [first, first + n) of one array into a room, or back."""
    cdef Py_ssize_t index[MOST_AXES]
    cdef const Py_ssize_t* strides = walk.strides[k]
    cdef const Py_ssize_t* shape = walk.shape
    cdef Py_ssize_t last = walk.ndim - 1, axis, some, rows
    cdef bint across = lies_across(walk, k)
    for axis in range(last, -1, -1):
        index[axis] = first % shape[axis]
        first = first // shape[axis]
        array += index[axis] * strides[axis]
    while True:
        if across and not index[last] and n >= shape[last]:
            rows = min(n // shape[last], shape[last - 1] - index[last - 1])
            some = rows * shape[last]
            copy_across[item](
                array, strides[last - 1], strides[last], room, rows, shape[last], back
            )
            axis = last - 1
            array += rows * strides[axis]
            index[axis] += rows
        else:
            some = min(n, shape[last] - index[last])
            copy_row[item](array, strides[last], room, some, back)
            axis = last
            array += some * strides[axis]
            index[axis] += some
        n -= some
        if not n:
            return
        room += some
        while index[axis] == shape[axis]:
            array += strides[axis - 1] - shape[axis] * strides[axis]
            index[axis] = 0
            axis -= 1
            index[axis] += 1


cdef void copy_part(
    const Walk* walk,
    int k,
    size_t array,
    size_t room,
    Py_ssize_t first,
    Py_ssize_t n,
    bint back,
) noexcept nogil:
    """Copy the elements [first, first + n) of one array, by their size."""
    cdef char* begin = <char*> array
    if walk.size[k] == 4:
        copy_items[fastadam_item4](walk, k, begin, <fastadam_item4*> room, first, n, back)
    elif walk.size[k] == 8:
        copy_items[fastadam_item8](walk, k, begin, <fastadam_item8*> room, first, n, back)
    else:
        copy_items[fastadam_item2](walk, k, begin, <fastadam_item2*> room, first, n, back)


cdef Py_ssize_t chunk_of(const Walk* walk) noexcept nogil:
    """How many elements are brought together at once."""
    cdef Py_ssize_t n = 0
    cdef bint across = False
    cdef int k
    for k in range(N_WALKED):
        if walk.apart[k]:
            # each begins a line, and not where another one does in the cache
            n += walk.size[k]
            across |= lies_across(walk, k)
    n = ROOM // n // LINE * LINE
    return n if across else min(n, <Py_ssize_t> FEW)


cdef called_void adam_walked(
    const Tensor* tensor,
    const Op* ops,
    const real* coefficients,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The elements [begin, end) of one tensor, whose arrays share no dense layout."""
    cdef char room[ROOM + (N_WALKED + 1) * LINE]
    cdef const Walk* walk = <const Walk*> tensor.walk
    cdef const size_t* arrays = &tensor.p
    cdef Tensor dense
    cdef size_t* places = &dense.p
    cdef size_t place
    cdef Py_ssize_t n, row = walk.shape[walk.ndim - 1], chunk = chunk_of(walk)
    cdef int k
    while begin < end:
        n = chunk
        if n > row:
            # whole rows, after what is left of one
            n = (begin + n) // row * row - begin
        n = min(n, end - begin)
        dense = tensor[0]
        dense.walk = 0
        place = (<size_t> room + LINE - 1) // LINE * LINE
        for k in range(N_WALKED):
            if walk.apart[k]:
                places[k] = place
                place += (n * walk.size[k] + LINE) // LINE * LINE
                copy_part(walk, k, arrays[k], places[k], begin, n, False)
            else:
                places[k] = arrays[k] + begin * walk.size[k]
        if dense.half:
            dense.half += 2 * begin
        adam_tensor[real](&dense, ops, coefficients, 0, n)
        for k in range(N_WALKED):
            if walk.apart[k] and k != WALKED_G:
                copy_part(walk, k, arrays[k], places[k], begin, n, True)
        begin += n
