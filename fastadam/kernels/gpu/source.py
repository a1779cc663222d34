r"""The CUDA source of the GPU engine: its types, and the parts put together.

Same formulas, names and order as ``reference.py`` and ``_step.pyx``; same bits, as long as it is
compiled without contraction and with IEEE division and roots (see ``engine.OPTIONS``). It includes
no header, so that it needs none of the CUDA toolkit's. The arguments of each kernel are declared
for Python in ``engine.KERNELS``.
"""

from fastadam.algorithms.adam import ADAM
from fastadam.kernels.gpu import source_adam as adam
from fastadam.kernels.gpu import source_ops as ops
from fastadam.kernels.gpu import source_sums as sums
from fastadam.kernels.gpu import source_walk as walk

__all__ = ["SOURCE"]

_TYPES = r"""
#if defined(__CUDA_ARCH__) && !__CUDA_FTZ
#error "the bits are those of -ftz=true, which is CuPy's to give"
#endif

// How many threads a block has, elements a chunk of the defined order of a norm, and rows the
// scalars.
constexpr unsigned THREADS = 256;
constexpr unsigned CHUNK = 4096;
constexpr unsigned SETS = 32;

// Architectures before sm_70 do not know what lets a parameter be read where it is.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 700
#define GRID_CONSTANT
#else
#define GRID_CONSTANT __grid_constant__
#endif

// Half-precision numbers as they are stored.
struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

// N neighbouring elements, read and written with accesses of 16 bytes.
template <typename X, int N>
struct alignas(sizeof(X) * N < 16 ? sizeof(X) * N : 16) Pack { X x[N]; };

// One parameter: where its arrays lie and which scalars drive its step. gpu/table.py makes the same
// for NumPy.
struct Tensor {
    size_t p;
    size_t STREAMS;    // 0 for one that is not there
    size_t half;       // the half-precision parameter that p is the float32 master of, or 0
    size_t half_type;  // a Stored
    size_t n;          // elements
    size_t start;      // blocks of the tensors before this one
    size_t row;        // this tensor's row of scalars
};

// One gradient whose squares are summed.
struct Span {
    size_t n;          // elements
    size_t start;      // chunks of the gradients before this one
    size_t place;      // of its total
};

// One gradient that a hook changes, and the numbers a and b of the change.
struct Change {
    size_t p, g, n, start;
    size_t place;      // of its rate
    double a, b;
};

// The scalars of one step, in the order of the algorithm.
template <typename T>
struct Row {
    T SCALARS;
};

// Those of all parameters of a launch; what their gradients are divided by, 0 for nothing; and,
// where graphs read them, whether a step is due: 0 if nobody has said so since the last one.
template <typename T>
struct Scalars { Row<T> rows[SETS]; T scale, due; };

// How a half-precision parameter is stored, as in _tensors.pxd; what is done to gradients before a
// step, as in gpu/table.py; and what a hook does to them, as in ops.py.
enum Stored { COMPUTING, FLOAT16, BFLOAT16 };
enum Prepare { AS_IT_IS, PREPARED, WRITTEN };
enum Kind { STEP, ADD, ADD_SIGN, CLIP, MULTIPLY };
"""
_TYPES = _TYPES.replace("STREAMS", ", ".join(ADAM.state))
_TYPES = _TYPES.replace("SCALARS", ", ".join(ADAM.scalars))

SOURCE = "".join((_TYPES, *(part.SOURCE for part in (walk, adam, sums, ops))))
