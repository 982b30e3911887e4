// Every row of an activation times a factor for each channel, rounded, in place.

template <class T> __device__ void scale_channels(T *x, u64 count, u64 columns, const f32 *factors) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step)
        x[at] = narrow<T>(widen(x[at]) * factors[at % columns]);
}

#define DEFINE(T) \
    KERNEL(scale_channels, T)(T *x, u64 count, u64 columns, const f32 *factors) { scale_channels(x, count, columns, factors); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
