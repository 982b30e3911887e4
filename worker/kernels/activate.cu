// round(round(activation(gate)) · up). Kinds are those of `Activation`, in its order.

__device__ __forceinline__ f32 activation(f32 x, u32 kind) {
    if (kind == 0) return __fdiv_rn(x, 1.0f + expf(-x));
    if (kind == 1) return x * 0.5f * (1.0f + erff(x * 0.70710678f));
    f32 inner = 0.79788456f * (x + 0.044715f * x * x * x);
    return __fdiv_rn(x, 1.0f + expf(-2.0f * inner));
}

template <class T>
__device__ void activate(const T *gate, const T *up, T *out, u64 count, u32 kind) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step)
        out[at] = narrow<T>(rounded<T>(activation(widen(gate[at]), kind)) * widen(up[at]));
}

#define DEFINE(T) \
    KERNEL(activate, T)(const T *gate, const T *up, T *out, u64 count, u32 kind) { activate(gate, up, out, count, kind); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
