// Sums in place: of two tensors, and of an expert's rows to the rows of its tokens.

template <class T>
__device__ void add(T *sum, const T *other, u64 count) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step)
        sum[at] = narrow<T>(widen(sum[at]) + widen(other[at]));
}

// sum[tokens[i]] += round(rows[i] · weights[i]); tokens are all different. One block for each row.
template <class T>
__device__ void scatter_add(T *sum, const T *rows, const u32 *tokens, const f32 *weights, u64 width) {
    T *to = sum + (u64)tokens[blockIdx.x] * width;
    const T *from = rows + (u64)blockIdx.x * width;
    f32 weight = weights[blockIdx.x];
    for (u64 at = threadIdx.x; at < width; at += blockDim.x)
        to[at] = narrow<T>(widen(to[at]) + rounded<T>(widen(from[at]) * weight));
}

#define DEFINE(T) \
    KERNEL(add, T)(T *sum, const T *other, u64 count) { add(sum, other, count); } \
    KERNEL(scatter_add, T)(T *sum, const T *rows, const u32 *tokens, const f32 *weights, u64 width) { \
        scatter_add(sum, rows, tokens, weights, width); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
