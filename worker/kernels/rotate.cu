// Rotary position embedding in place: the halves of a head turn together, every product and sum rounded.
// One block for each row; a thread turns pairs of dimensions.

template <class T>
__device__ void rotate(T *x, const T *cosines, const T *sines, const u32 *positions, u64 width, u32 head_dim, u32 half) {
    T *row = x + (u64)blockIdx.x * width;
    const T *cosine = cosines + (u64)positions[blockIdx.x] * half;
    const T *sine = sines + (u64)positions[blockIdx.x] * half;
    u64 pairs = width / head_dim * half;
    for (u64 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        u32 place = pair % half;
        T *left = row + pair / half * head_dim + place;
        T *right = left + half;
        f32 a = widen(*left), b = widen(*right), c = widen(cosine[place]), s = widen(sine[place]);
        *left = narrow<T>(rounded<T>(a * c) + rounded<T>(-b * s));
        *right = narrow<T>(rounded<T>(b * c) + rounded<T>(a * s));
    }
}

#define DEFINE(T) \
    KERNEL(rotate, T)(T *x, const T *cosines, const T *sines, const u32 *positions, u64 width, u32 head_dim, u32 half) { \
        rotate(x, cosines, sines, positions, width, head_dim, half); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
