"""A file in memory with holes, for a library in C to write: no signal comes in between.

Between two lines of Python a signal handler may raise, and libhdf5, which calls these methods, does
not survive a write that has failed: closing the file writes past the end of what it has freed.
These are C, where nothing is handled; what fails for lack of memory is kept, to be raised later.
It does not survive either that it finds no memory itself: some is kept, and given back in time.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

cdef Py_ssize_t PAGE = 4096
# what libhdf5 takes to close a file
cdef Py_ssize_t RESERVE = 1 << 21


@cython.auto_pickle(False)
cdef class Pages:
    """What has been written, by page; what is between two pages was never written."""

    cdef dict _pages
    cdef Py_ssize_t _at, _length
    cdef object _reserve
    # The first error: whoever has used this has to ask for it.
    cdef readonly object failed

    def __init__(self):
        self._pages = {}
        self._at = self._length = 0
        self.failed = None
        self._reserve = PyBytes_FromStringAndSize(NULL, RESERVE)

    def write(self, const unsigned char[::1] data not None):
        """Write at the position, as io.RawIOBase; an error is kept, and none raised."""
        cdef Py_ssize_t done = 0, size = data.shape[0], number, start, n_bytes
        try:
            while done < size:
                number = (self._at + done) // PAGE
                start = (self._at + done) % PAGE
                n_bytes = min(size - done, PAGE - start)
                page = self._pages.get(number)
                if page is None:
                    page = self._pages[number] = bytearray(PAGE)
                memcpy(PyByteArray_AS_STRING(page) + start, &data[done], n_bytes)
                done += n_bytes
        except BaseException as error:
            if self.failed is None:
                self.failed = error
                self._reserve = None
        self._at += size
        self._length = max(self._length, self._at)
        return size

    def readinto(self, unsigned char[::1] buffer not None):
        """Read what is at the position, as io.RawIOBase."""
        cdef Py_ssize_t done = 0, number, start, n_bytes
        cdef Py_ssize_t size = max(0, min(buffer.shape[0], self._length - self._at))
        while done < size:
            number = (self._at + done) // PAGE
            start = (self._at + done) % PAGE
            n_bytes = min(size - done, PAGE - start)
            page = self._pages.get(number)
            if page is None:
                memset(&buffer[done], 0, n_bytes)
            else:
                memcpy(&buffer[done], PyByteArray_AS_STRING(page) + start, n_bytes)
            done += n_bytes
        self._at += size
        return size

    def read(self, Py_ssize_t n_bytes=-1):
        """Read what is at the position, as io.RawIOBase; all of it if no size is given."""
        left = max(0, self._length - self._at)
        found = bytearray(left if n_bytes < 0 else min(n_bytes, left))
        if found:
            self.readinto(found)
        return bytes(found)

    def seek(self, Py_ssize_t offset, int whence=0):
        """Move the position, as io.RawIOBase."""
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self):
        """Return the position."""
        return self._at

    def truncate(self, size=None):
        """Set the length, as io.RawIOBase."""
        self._length = self._at if size is None else size
        return self._length

    def release(self):
        """Give back what has been kept for the end."""
        self._reserve = None

    def flush(self):
        """Do nothing: there is nothing that waits."""
