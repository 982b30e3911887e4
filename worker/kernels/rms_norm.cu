// round(round(x / sqrt(mean(x²) + eps)) · weight) over runs of the weight's width. One block for each run.

template <class T>
__device__ void rms_norm(const T *x, const T *weight, u64 width, f32 eps, T *out) {
    x += (u64)blockIdx.x * width;
    out += (u64)blockIdx.x * width;
    f32 squares = 0;
    for (u64 at = threadIdx.x; at < width; at += blockDim.x) squares += widen(x[at]) * widen(x[at]);
    f32 mean = __fdiv_rn(block_sum(squares), (f32)width);
    f32 factor = __fdiv_rn(1.0f, __fsqrt_rn(mean + eps));
    for (u64 at = threadIdx.x; at < width; at += blockDim.x)
        out[at] = narrow<T>(rounded<T>(widen(x[at]) * factor) * widen(weight[at]));
}

#define DEFINE(T) \
    KERNEL(rms_norm, T)(const T *x, const T *weight, u64 width, f32 eps, T *out) { \
        rms_norm(x, weight, width, eps, out); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
