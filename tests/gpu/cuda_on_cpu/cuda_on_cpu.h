// CUDA C++ on a CPU: included before a source that is compiled unmodified by g++. One block runs at
// a time, its threads as fibers that change at barriers and shuffles, in an order that may be chosen.
#pragma once
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) alignas(n)
// one block at a time: what is static is shared by a block
#define __shared__ static

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct uint3 { unsigned x, y, z; };

template <typename To, typename From>
static inline To cuda_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float x) { return cuda_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_bits<float>(x); }
static inline int __float_as_int(float x) { return cuda_bits<int>(x); }
static inline float __int_as_float(int x) { return cuda_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return cuda_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return cuda_bits<double>(x); }
static inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }

namespace cuda_on_cpu {

enum State { RUNNABLE, AT_BARRIER, AT_SHUFFLE, DONE };
constexpr unsigned WARP = 32;
constexpr size_t STACK = 64 * 1024;

// A switch from one stack to another that, unlike swapcontext, makes no system call.
#if defined(__x86_64__)
using Context = void *;
extern "C" void cuda_on_cpu_switch(Context *from, Context to);
asm(R"(
    .text
    .hidden cuda_on_cpu_switch
    .globl cuda_on_cpu_switch
    .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
static inline void change(Context &from, Context &to) { cuda_on_cpu_switch(&from, to); }
static inline void begin(Context &context, char *stack, void (*entry)())
{
    // the entry finds the stack as after a call: 8 bytes below a multiple of 16
    auto *top = reinterpret_cast<uintptr_t *>((uintptr_t)(stack + STACK) & ~(uintptr_t)15);
    *--top = 0;
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; ++i)
        *--top = 0;
    context = top;
}
#else
using Context = ucontext_t;
static inline void change(Context &from, Context &to) { swapcontext(&from, &to); }
static inline void begin(Context &context, char *stack, void (*entry)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

// At a shuffle, what is handed over among the threads of a mask, by whom, and what is taken.
struct Shuffle { unsigned mask, source; size_t width; uint64_t given, taken; };
struct Fiber { Context context; uint3 thread; State state; Shuffle shuffle; };

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static std::vector<unsigned> order;
static std::function<void()> body;
static std::string error;
static Fiber *current;
static Context scheduler;

static inline void wait(State state)
{
    current->state = state;
    change(current->context, scheduler);
}

// Note what is wrong, and never come back to this thread.
[[noreturn]] static inline void fail(const std::string &what)
{
    if (error.empty())
        error = what;
    for (;;)
        wait(DONE);
}

static void entry()
{
    body();
    for (;;)
        wait(DONE);
}

}  // namespace cuda_on_cpu

static uint3 blockIdx;
static dim3 blockDim, gridDim;
#define threadIdx (cuda_on_cpu::current->thread)
static constexpr int warpSize = cuda_on_cpu::WARP;

static inline void __syncthreads() { cuda_on_cpu::wait(cuda_on_cpu::AT_BARRIER); }

namespace cuda_on_cpu {

// Hand a value over, and take that of the thread whose place in the warp is `source`; of one that is
// not in the mask, bits that are NaN in every floating type.
template <typename X>
static inline X shuffled(unsigned mask, X value, unsigned place, unsigned source)
{
    static_assert(sizeof(X) == 4 || sizeof(X) == 8, "what CUDA shuffles");
    if (!(mask >> place & 1))
        fail("a thread shuffles with a mask that it is not in");
    Shuffle &shuffle = current->shuffle;
    shuffle = {mask, source, sizeof value, 0, ~0ull};
    memcpy(&shuffle.given, &value, sizeof value);
    wait(AT_SHUFFLE);
    memcpy(&value, &shuffle.taken, sizeof value);
    return value;
}

static inline unsigned place_in_warp() { return (current - fibers.data()) % WARP; }

}  // namespace cuda_on_cpu

template <typename X>
static inline X __shfl_down_sync(unsigned mask, X value, unsigned delta, int width = warpSize)
{
    // a thread without one so far above it, in its part of the warp, takes its own
    const unsigned place = cuda_on_cpu::place_in_warp();
    const bool there = place % width + delta < (unsigned)width;
    return cuda_on_cpu::shuffled(mask, value, place, there ? place + delta : place);
}

// What -fsanitize=alignment calls: on a GPU, a misaligned access is an error.
extern "C" {
struct cuda_on_cpu_mismatch { const char *file; unsigned line, column; void *type; };
__attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(
    cuda_on_cpu_mismatch *where, uintptr_t address)
{
    cuda_on_cpu::fail("misaligned address " + std::to_string(address) + " in line "
                      + std::to_string(where->line));
}
__attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1_abort(
    cuda_on_cpu_mismatch *where, uintptr_t address)
{
    __ubsan_handle_type_mismatch_v1(where, address);
}
}

namespace cuda_on_cpu {

// An address that is nobody's is an error of the launch, as on a GPU, and the test goes on.
struct IllegalAddress {
    struct sigaction segv, bus;
    IllegalAddress()
    {
        struct sigaction action = {};
        // the thread that made the access never comes back: its signal must not stay blocked
        action.sa_flags = SA_NODEFER;
        action.sa_handler = [](int) { fail("an illegal memory access was encountered"); };
        sigaction(SIGSEGV, &action, &segv);
        sigaction(SIGBUS, &action, &bus);
    }
    ~IllegalAddress()
    {
        sigaction(SIGSEGV, &segv, nullptr);
        sigaction(SIGBUS, &bus, nullptr);
    }
};

// Let those go on who wait at a shuffle for threads that have all come; tell whether some do.
static bool release_warps(unsigned threads)
{
    bool some = false;
    for (unsigned i = 0; i < threads; ++i) {
        const unsigned mask = fibers[i].shuffle.mask;
        Fiber *warp = &fibers[i - i % WARP];
        const unsigned size = std::min(WARP, threads - (i - i % WARP));
        bool all = fibers[i].state == AT_SHUFFLE && (size == WARP || !(mask >> size));
        for (unsigned j = 0; all && j < size; ++j)
            all = !(mask >> j & 1)
                  || (warp[j].state == AT_SHUFFLE && warp[j].shuffle.mask == mask
                      && warp[j].shuffle.width == fibers[i].shuffle.width);
        for (unsigned j = 0; all && j < size; ++j)
            if (mask >> j & 1) {
                const unsigned source = warp[j].shuffle.source;
                if (mask >> source & 1)
                    warp[j].shuffle.taken = warp[source].shuffle.given;
                warp[j].state = RUNNABLE;
            }
        some |= all;
    }
    return some;
}

static void run_block(unsigned threads)
{
    for (unsigned i = 0; i < threads; ++i) {
        Fiber &fiber = fibers[i];
        begin(fiber.context, &stacks[STACK * i], entry);
        fiber.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        fiber.state = RUNNABLE;
    }
    for (;;) {
        for (unsigned i : order) {
            if (fibers[i].state != RUNNABLE)
                continue;
            current = &fibers[i];
            change(scheduler, current->context);
            if (!error.empty())
                return;
        }
        if (release_warps(threads))
            continue;
        unsigned done = 0, shuffling = 0;
        for (const Fiber &fiber : fibers) {
            done += fiber.state == DONE;
            shuffling += fiber.state == AT_SHUFFLE;
        }
        if (done == threads)
            return;
        if (shuffling) {
            error = "some threads of a warp wait at a shuffle, and others are elsewhere";
            return;
        }
        if (done) {
            error = "some threads of a block wait at __syncthreads, and others have ended";
            return;
        }
        for (Fiber &fiber : fibers)
            fiber.state = RUNNABLE;
    }
}

struct Launch {
    unsigned grid[3], block[3];
    size_t shared;
    int flush;        // subnormal numbers to zero
    int order;        // 0 forward, 1 reverse, 2 shuffled
    unsigned seed;
};

// Changes the floating-point mode as long as it lives.
struct Mode {
#if defined(__x86_64__)
    unsigned saved = _mm_getcsr();
    explicit Mode(bool flush) { _mm_setcsr(flush ? saved | 0x8040u : saved & ~0x8040u); }
    ~Mode() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
    unsigned long saved;
    explicit Mode(bool flush)
    {
        asm volatile("mrs %0, fpcr" : "=r"(saved));
        const unsigned long mode = flush ? saved | 1ul << 24 : saved & ~(1ul << 24);
        asm volatile("msr fpcr, %0" : : "r"(mode));
    }
    ~Mode() { asm volatile("msr fpcr, %0" : : "r"(saved)); }
#endif
};

static void arrange(std::vector<unsigned> &numbers, size_t n, const Launch &launch)
{
    numbers.resize(n);
    for (size_t i = 0; i < n; ++i)
        numbers[i] = launch.order == 1 ? n - 1 - i : i;
    if (launch.order == 2)
        std::shuffle(numbers.begin(), numbers.end(), std::mt19937(launch.seed));
}

template <typename... Arguments, size_t... I>
static int run(void (*kernel)(Arguments...), void **arguments, const Launch &launch,
               std::index_sequence<I...>)
{
    const unsigned *g = launch.grid, *b = launch.block;
    const size_t threads = (size_t)b[0] * b[1] * b[2];
    error.clear();
    if (!threads || threads > 1024 || b[2] > 64 || !g[0] || g[0] > 0x7fffffffu || !g[1]
        || g[1] > 65535 || !g[2] || g[2] > 65535 || launch.shared > 48 * 1024) {
        error = "a launch beyond the limits of CUDA: CUDA_ERROR_INVALID_VALUE";
        return 1;
    }
    // as cuLaunchKernel: each argument is read where it is told, in the width of the parameter
    auto values = std::make_tuple(*reinterpret_cast<std::remove_cv_t<Arguments> *>(arguments[I])...);
    body = [&] { kernel(std::get<I>(values)...); };
    gridDim = {g[0], g[1], g[2]};
    blockDim = {b[0], b[1], b[2]};
    fibers.resize(threads);
    if (stacks.size() < STACK * threads)
        stacks.resize(STACK * threads);
    arrange(order, threads, launch);
    std::vector<unsigned> blocks;
    arrange(blocks, (size_t)g[0] * g[1] * g[2], launch);
    const Mode mode(launch.flush);
    const IllegalAddress guard;
    for (unsigned block : blocks) {
        blockIdx = {block % g[0], block / g[0] % g[1], block / (g[0] * g[1])};
        run_block(threads);
        if (!error.empty())
            return 1;
    }
    return 0;
}

template <typename... Arguments>
static int launch(void (*kernel)(Arguments...), void **arguments, const Launch *launch)
{
    return run(kernel, arguments, *launch, std::index_sequence_for<Arguments...>());
}

template <typename T>
static std::string described()
{
    using U = std::remove_cv_t<T>;
    const char *kind = std::is_pointer_v<U>          ? "pointer"
                       : std::is_same_v<U, bool>     ? "bool"
                       : std::is_floating_point_v<U> ? "float"
                       : !std::is_integral_v<U>      ? "struct"
                       : std::is_signed_v<U>         ? "int"
                                                     : "uint";
    return kind + std::to_string(sizeof(U));
}

// The kinds and widths of a kernel's parameters, such as "pointer8 uint4 struct1028".
template <typename... Arguments>
static std::string signature(void (*)(Arguments...))
{
    std::string all;
    ((all += (all.empty() ? "" : " ") + described<Arguments>()), ...);
    return all;
}

}  // namespace cuda_on_cpu
