// What calibration learns of an activation: its largest magnitude, and those of each channel.

// Per block: the largest finite magnitude, and how many elements are not a number or infinite.
template <class T>
__device__ void magnitude(const T *x, u64 count, f32 *amax, u64 *nans, u64 *infinities) {
    f32 most = 0;
    u64 not_numbers = 0, infinite = 0;
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
        f32 value = fabsf(widen(x[at]));
        if (value != value) not_numbers++;
        else if (value == INFINITE) infinite++;
        else most = fmaxf(most, value);
    }
    most = block_max(most);
    not_numbers = block_sum(not_numbers);
    infinite = block_sum(infinite);
    if (threadIdx.x == 0) {
        amax[blockIdx.x] = most;
        nans[blockIdx.x] = not_numbers;
        infinities[blockIdx.x] = infinite;
    }
}

// For each stretch of rows (grid's y) and each column: largest magnitude, and the sum of magnitudes in f64 in the rows'
// order. The caller adds stretches in their order.
template <class T>
__device__ void channels(const T *x, u64 rows, u64 columns, u64 stretch, f32 *amax, double *sums) {
    u64 column = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    u64 first = blockIdx.y * stretch;
    u64 last = first + stretch < rows ? first + stretch : rows;
    f32 most = 0;
    double sum = 0;
    for (u64 row = first; row < last; row++) {
        f32 value = fabsf(widen(x[row * columns + column]));
        most = fmaxf(most, value);
        sum += (double)value;
    }
    amax[blockIdx.y * columns + column] = most;
    sums[blockIdx.y * columns + column] = sum;
}

#define DEFINE(T) \
    KERNEL(magnitude, T)(const T *x, u64 count, f32 *amax, u64 *nans, u64 *infinities) { \
        magnitude(x, count, amax, nans, infinities); \
    } \
    KERNEL(channels, T)(const T *x, u64 rows, u64 columns, u64 stretch, f32 *amax, double *sums) { \
        channels(x, rows, columns, stretch, amax, sums); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
