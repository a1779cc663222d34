"""What the kernels were compiled with, and what the OpenMP runtime says of the threads."""

cdef extern from *:
    """
    #include <limits.h>
    #include <pthread.h>

    #ifdef _OPENMP
    #include <omp.h>
    #define FASTADAM_OPENMP_DATE _OPENMP
    static int fastadam_max_threads(void) { return omp_get_max_threads(); }
    static int fastadam_thread_limit(void) { return omp_get_thread_limit(); }
    static int fastadam_available_cpus(void) { return omp_get_num_procs(); }
    #else
    #define FASTADAM_OPENMP_DATE 0
    static int fastadam_max_threads(void) { return 1; }
    static int fastadam_thread_limit(void) { return INT_MAX; }
    static int fastadam_available_cpus(void) { return 1; }
    #endif

    #if defined(__apple_build_version__)
    #define FASTADAM_COMPILER "Apple clang " __clang_version__
    #elif defined(__clang__)
    #define FASTADAM_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FASTADAM_COMPILER "gcc " __VERSION__
    #else
    #define FASTADAM_COMPILER "unknown"
    #endif

    /* Set in the child of every fork, those made by C code too. */
    static volatile int fastadam_forked = 0;
    static void fastadam_in_child(void) { fastadam_forked = 1; }
    static int fastadam_watch_forks(void) {
        return pthread_atfork(NULL, NULL, fastadam_in_child);
    }
    """
    const int FASTADAM_OPENMP_DATE
    const char* FASTADAM_COMPILER
    int fastadam_forked
    int fastadam_max_threads() nogil
    int fastadam_thread_limit() nogil
    int fastadam_available_cpus() nogil
    int fastadam_watch_forks()


def max_threads() -> int:
    """Return how many threads OpenMP would use for a parallel region now; 1 without OpenMP."""
    return fastadam_max_threads()


def thread_limit() -> int:
    """Return how many threads OpenMP starts at most: ``OMP_THREAD_LIMIT``, else very many."""
    return fastadam_thread_limit()


def available_cpus() -> int:
    """Return on how many CPUs this thread may run, as OpenMP sees it; 1 without OpenMP.

    GCC's runtime looks at the thread's CPU affinity every time, and knows when it was itself that
    has bound the thread (``OMP_PROC_BIND``); LLVM's looks once.
    """
    return fastadam_available_cpus()


def version() -> int:
    """Return the date of the OpenMP specification, such as 201511; 0 for a build without."""
    return FASTADAM_OPENMP_DATE


def compiler() -> str:
    """Return the name and the version of the compiler that built the kernels."""
    return FASTADAM_COMPILER.decode("ascii").strip()


def forked() -> bool:
    """Return whether this process is a fork of one that had imported this module.

    The threads of an OpenMP runtime do not live on in a forked child, and libgomp would wait for
    them for ever, so that such a child must stay on one thread.
    """
    return fastadam_forked != 0


if fastadam_watch_forks():
    raise MemoryError("pthread_atfork could not register the handler that notices forks")
