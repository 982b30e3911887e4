// Rows of a table: out[i] = table[ids[i]]. One block for each row.

template <class T>
__device__ void gather(const T *table, const u32 *ids, u64 width, T *out) {
    const T *from = table + (u64)ids[blockIdx.x] * width;
    T *to = out + (u64)blockIdx.x * width;
    for (u64 at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

#define DEFINE(T) \
    KERNEL(gather, T)(const T *table, const u32 *ids, u64 width, T *out) { gather(table, ids, width, out); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
