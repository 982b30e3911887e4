// sums += xᵀ · x in f32, each sum over tokens in their order, so that its bits do not depend on how tokens are cut into calls.
// A block has a square of 64 sums a side, a thread four by four of them; squares below the diagonal are left out.

#define GRAM_SIDE 64
#define GRAM_DEPTH 16

template <class T> __device__ void gram(const T *x, u64 rows, u64 columns, f32 *sums) {
    __shared__ f32 left[GRAM_DEPTH][GRAM_SIDE];
    __shared__ f32 right[GRAM_DEPTH][GRAM_SIDE];
    if (blockIdx.y > blockIdx.x) return;
    u64 top = (u64)blockIdx.y * GRAM_SIDE, first = (u64)blockIdx.x * GRAM_SIDE;
    u32 down = threadIdx.x / 16 * 4, across = threadIdx.x % 16 * 4;
    f32 own[4][4];
    for (u32 i = 0; i < 4; i++)
        for (u32 j = 0; j < 4; j++) {
            bool is_there = top + down + i < columns && first + across + j < columns;
            own[i][j] = is_there ? sums[(top + down + i) * columns + first + across + j] : 0.0f;
        }
    for (u64 begin = 0; begin < rows; begin += GRAM_DEPTH) {
        u32 depth = rows - begin < GRAM_DEPTH ? rows - begin : GRAM_DEPTH;
        for (u32 at = threadIdx.x; at < depth * GRAM_SIDE; at += blockDim.x) {
            u64 row = (begin + at / GRAM_SIDE) * columns;
            u32 column = at % GRAM_SIDE;
            left[at / GRAM_SIDE][column] = top + column < columns ? widen(x[row + top + column]) : 0.0f;
            right[at / GRAM_SIDE][column] = first + column < columns ? widen(x[row + first + column]) : 0.0f;
        }
        __syncthreads();
        for (u32 k = 0; k < depth; k++)
            for (u32 i = 0; i < 4; i++)
                for (u32 j = 0; j < 4; j++) own[i][j] = fmaf(left[k][down + i], right[k][across + j], own[i][j]);
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++)
        for (u32 j = 0; j < 4; j++)
            if (top + down + i < columns && first + across + j < columns)
                sums[(top + down + i) * columns + first + across + j] = own[i][j];
}

#define DEFINE(T) \
    KERNEL(gram, T)(const T *x, u64 rows, u64 columns, f32 *sums) { gram(x, rows, columns, sums); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
