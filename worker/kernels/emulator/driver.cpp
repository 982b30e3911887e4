// A GPU played by the host: the driver's functions that the worker calls, and the kernels compiled from their own sources, each
// block's threads taking turns. What a real GPU rounds otherwise (exp, erf) and how fast it is, it cannot show.
//
// EMULATED_GPUS says how many there are, EMULATED_CAPABILITY of which kind (90).
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <ucontext.h>
#include <tuple>
#include <utility>
#include <vector>

#include "streams.hpp"

// ---- what the compiler of CUDA C knows ----
#define EMULATED
#define __device__
#define __global__
#define __forceinline__ inline
// Blocks run one after the other, so the memory that a block's threads share is everybody's.
#define __shared__ static

struct Side { unsigned x, y, z; };

struct Fiber {
    ucontext_t entry;
    jmp_buf place;
    std::vector<char> stack;
    Side thread;
    bool begun, ended;
};

static Fiber *running;
static jmp_buf scheduler;
static Side gridDim, blockDim, blockIdx;
#define threadIdx (running->thread)

// Lets all other threads of the block come as far as this one.
__attribute__((noinline)) static void yield() {
    if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

static void __syncthreads() { yield(); }

// Two places for each thread's value, in turns: it is read while the next one is written.
static uint64_t exchanged[2][1024];
static std::vector<unsigned> exchanges;

template <class T> static T __shfl_xor_sync(unsigned, T value, int step) {
    unsigned own = threadIdx.x, turn = exchanges[own]++ % 2;
    memcpy(&exchanged[turn][own], &value, sizeof value);
    yield();
    memcpy(&value, &exchanged[turn][own ^ step], sizeof value);
    return value;
}

static float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static float __int_as_float(int bits) { return __uint_as_float(bits); }
static unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __fsqrt_rn(float x) { return sqrtf(x); }

#include "../numbers.cuh"

f32 widen(f16 x) {
    u32 sign = (u32)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, rest = x.bits & 1023;
    if (exponent == 0) return copysignf(ldexpf(rest, -24), __uint_as_float(sign | 0x3f800000));
    return __uint_as_float(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | rest << 13);
}

// Drops the lower bits of a number, to nearest, ties to even.
static u32 dropped(u64 bits, int count) {
    u64 half = (u64)1 << (count - 1), rest = bits & (2 * half - 1);
    bits >>= count;
    return bits + (rest > half || (rest == half && (bits & 1)));
}

template <> bf16 narrow<bf16>(f32 x) {
    if (x != x) return {0x7fff};
    return {(u16)dropped(__float_as_uint(x), 16)};
}

template <> f16 narrow<f16>(f32 x) {
    if (x != x) return {0x7fff};
    u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest >= 0x477ff000) return {(u16)(sign | 0x7c00)};
    if (rest >= 0x38800000) return {(u16)(sign | dropped(rest - 0x38000000, 13))};
    int shift = 126 - (int)(rest >> 23);
    if (shift > 24) return {(u16)sign};
    return {(u16)(sign | dropped((rest & 0x7fffff) | 0x800000, shift))};
}

#include "../pieces.cuh"
#include "../e2m1.cuh"
#include "../e4m3.cuh"
#include "kernels.inc"

// ---- launching ----
// A kernel with its arguments, which are taken when it is queued.
using Bound = std::function<void()>;
using Kernel = Bound (*)(void **);

template <auto kernel> struct Binding;
template <class... A, void (*kernel)(A...)> struct Binding<kernel> {
    template <size_t... I> static Bound take(void **parameters, std::index_sequence<I...>) {
        return [values = std::make_tuple(*(A *)parameters[I]...)] { std::apply(kernel, values); };
    }
    static Bound of(void **parameters) { return take(parameters, std::index_sequence_for<A...>()); }
};

static const std::map<std::string, Kernel> &kernels() {
#define ENTRY(NAME) {#NAME, Binding<NAME>::of},
    static const std::map<std::string, Kernel> all = {
#include "entries.inc"
    };
    return all;
}

static const Bound *work;

static void enter() {
    (*work)();
    running->ended = true;
    _longjmp(scheduler, 1);
}

static void run_block(std::vector<Fiber> &fibers) {
    exchanges.assign(fibers.size(), 0);
    for (unsigned index = 0; index < fibers.size(); index++) {
        Fiber &fiber = fibers[index];
        fiber.begun = fiber.ended = false;
        fiber.thread = {index, 0, 0};
    }
    for (bool left = true; left;) {
        left = false;
        for (Fiber &fiber : fibers) {
            if (fiber.ended) continue;
            running = &fiber;
            if (_setjmp(scheduler) == 0) {
                if (running->begun) _longjmp(running->place, 1);
                running->begun = true;
                getcontext(&running->entry);
                running->entry.uc_stack.ss_sp = running->stack.data();
                running->entry.uc_stack.ss_size = running->stack.size();
                running->entry.uc_link = nullptr;
                makecontext(&running->entry, enter, 0);
                setcontext(&running->entry);
            }
            left |= !running->ended;
        }
    }
}

// ---- cuda.h ----
extern "C" {
Status cuInit(unsigned flags) { return flags == 0 ? 0 : INVALID_VALUE; }
Status cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Status cuDeviceGetCount(int *count) { *count = setting("EMULATED_GPUS", 1); return 0; }
Status cuDeviceGet(int *device, int index) {
    int count;
    cuDeviceGetCount(&count);
    *device = index;
    return index >= 0 && index < count ? 0 : INVALID_DEVICE;
}
Status cuDeviceGetName(char *name, int length, int) { snprintf(name, length, "Emulated GPU"); return 0; }
Status cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, 0x10 + device, 16); return 0; }
Status cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = memory(); return 0; }
Status cuDeviceGetAttribute(int *value, int attribute, int) {
    int capability = setting("EMULATED_CAPABILITY", 90);
    // Compute capability, and whether memory comes from pools.
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 115;
    return 0;
}
Status cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(uintptr_t)(device + 1); return 0; }
Status cuDevicePrimaryCtxRelease_v2(int) { return 0; }
Status cuCtxSetCurrent(void *context) { current = context; return 0; }
Status cuCtxGetCurrent(void **context) { *context = current; return 0; }

Status cuModuleLoadData(void **module, const void *) { *module = malloc(1); return 0; }
Status cuModuleUnload(void *module) { free(module); return 0; }
Status cuModuleGetFunction(void **function, void *, const char *name) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return NOT_FOUND;
    *function = (void *)found->second;
    return 0;
}
static void run_grid(const Bound &bound, Side grid, Side block) {
    work = &bound;
    gridDim = grid;
    blockDim = block;
    static std::vector<Fiber> fibers;
    fibers.resize(block.x);
    for (Fiber &fiber : fibers) fiber.stack.resize(32 << 10);
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = {x, y, 0};
            run_block(fibers);
        }
}
Status cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                      void *stream, void **parameters, void **) {
    if (gx == 0 || gy == 0 || gz != 1 || bx == 0 || bx > 1024 || by != 1 || bz != 1 || gy > 65535) return INVALID_VALUE;
    Lock lock(one_at_a_time);
    Bound bound = ((Kernel)function)(parameters);
    queue(stream, [=] { run_grid(bound, {gx, gy, 1}, {bx, 1, 1}); });
    return 0;
}
Status cuGetErrorName(Status, const char **text) { *text = "EMULATED_ERROR"; return 0; }
Status cuGetErrorString(Status status, const char **text) {
    *text = status == OUT_OF_MEMORY ? "out of memory" : "refused by the emulated GPU";
    return 0;
}
}
