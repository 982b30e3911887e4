// Types that models compute in, without a header of the CUDA toolkit: everything is computed in f32 and rounded once.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ f32 widen(f32 x) { return x; }
__device__ __forceinline__ f32 widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ f32 widen(f16 x);

template <class T> __device__ __forceinline__ T narrow(f32 x);
template <> __device__ __forceinline__ f32 narrow<f32>(f32 x) { return x; }

// The emulator (worker/kernels/emulator) has words of its own for what is an instruction of a GPU.
#ifndef EMULATED
__device__ __forceinline__ f32 widen(f16 x) {
    f32 y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <> __device__ __forceinline__ bf16 narrow<bf16>(f32 x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ f16 narrow<f16>(f32 x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#endif

template <class T> __device__ __forceinline__ f32 rounded(f32 x) { return widen(narrow<T>(x)); }

#define INFINITE __int_as_float(0x7f800000)

// One kernel for each type: NAME_f32, NAME_bf16, NAME_f16.
#define KERNEL(NAME, T) extern "C" __global__ void NAME##_##T
#define FOR_EACH_TYPE(DEFINE) DEFINE(f32) DEFINE(bf16) DEFINE(f16)

// Sum and maximum over a block of at most 1024 threads, the same bits every time: lanes in a fixed tree, then warps.
template <class T> __device__ __forceinline__ T block_sum(T value) {
    __shared__ T warps[32];
    __shared__ T total;
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        T sum = 0;
        for (int warp = 0; warp < (int)((blockDim.x + 31) / 32); warp++) sum += warps[warp];
        total = sum;
    }
    __syncthreads();
    T result = total;
    __syncthreads();
    return result;
}

__device__ __forceinline__ f32 block_max(f32 value) {
    __shared__ f32 warps[32];
    __shared__ f32 total;
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        f32 most = -INFINITE;
        for (int warp = 0; warp < (int)((blockDim.x + 31) / 32); warp++) most = fmaxf(most, warps[warp]);
        total = most;
    }
    __syncthreads();
    f32 result = total;
    __syncthreads();
    return result;
}

// The largest of a block's numbers.
__device__ __forceinline__ u32 block_largest(u32 value) {
    __shared__ u32 warps[32];
    for (int step = 16; step > 0; step /= 2) {
        u32 other = __shfl_xor_sync(0xffffffffu, value, step);
        value = other > value ? other : value;
    }
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    u32 most = 0;
    for (int warp = 0; warp < (int)((blockDim.x + 31) / 32); warp++) most = warps[warp] > most ? warps[warp] : most;
    __syncthreads();
    return most;
}
