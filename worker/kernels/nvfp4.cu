// E2M1 codes in blocks of 16 or 32 under E4M3 scales and one scale of the tensor, and what they stand for; the same
// rounding in place. A thread has sixteen elements; two lanes share a block of 32.

// Codes of a piece, and its block's scale: the wished one as E4M3 has it.
__device__ __forceinline__ void write_nvfp4(const f32 *values, f32 wished, f32 tensor, u64 piece, u32 lanes, u8 *codes,
                                            u8 *scales) {
    u8 own[PIECE];
    wished = wished < E4M3_SMALLEST ? E4M3_SMALLEST : wished > E4M3_LARGEST ? E4M3_LARGEST : wished;
    u8 scale = e4m3_magnitude_code(wished);
    f32 divisor = e4m3_value(scale) * tensor;
    for (u32 i = 0; i < PIECE; i++) own[i] = e2m1_code(__fdiv_rn(values[i], divisor));
    write_nibbles(own, true, codes + piece * PIECE / 2);
    if (piece % lanes == 0) scales[piece / lanes] = scale;
}

template <class T>
__device__ void quantize_nvfp4(const T *x, u64 pieces, u32 lanes, f32 tensor, f32 sixfold, u8 *codes, u8 *scales) {
    EACH_PIECE_IN_WARPS(pieces) {
        f32 values[PIECE];
        bool is_there = piece < pieces;
        read_piece(is_there ? x + piece * PIECE : x, is_there ? PIECE : 0, values);
        u32 largest = largest_of_lanes(largest_bits(values), lanes);
        if (!is_there) continue;
        f32 wished = __fdiv_rn(__uint_as_float(largest), sixfold);
        wished = wished == 0.0f ? 1.0f : wished;
        write_nvfp4(values, wished, tensor, piece, lanes, codes, scales);
    }
}

// Under given magnitudes of blocks: a block that reaches as far as the tensor has the scale `ceiling`.
template <class T>
__device__ void quantize_nvfp4_fixed(const T *x, u64 pieces, u32 lanes, f32 amax, f32 ceiling, f32 tensor,
                                     const f32 *magnitudes, u8 *codes, u8 *scales) {
    f32 sixth = __fdiv_rn(amax, 6.0f);
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece < pieces; piece += stride) {
        f32 values[PIECE];
        read_piece(x + piece * PIECE, PIECE, values);
        f32 block = __fdiv_rn(magnitudes[piece / lanes], 6.0f);
        block = block == 0.0f ? 1.0f : block;
        f32 wished = __fdiv_rn(block * ceiling, sixth);
        write_nvfp4(values, wished, tensor, piece, lanes, codes, scales);
    }
}

template <class T>
__device__ void dequantize_nvfp4(const u8 *codes, u64 pieces, u32 lanes, f32 tensor, const u8 *scales, T *x) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece < pieces; piece += stride) {
        f32 values[PIECE];
        u64 packed = ((const u64 *)codes)[piece];
        f32 scale = e4m3_value(scales[piece / lanes]) * tensor;
        for (u32 i = 0; i < PIECE; i++) values[i] = e2m1_value((u32)(packed >> (4 * i)) & 15u) * scale;
        write_piece(values, PIECE, x + piece * PIECE);
    }
}

// Rows of any length in place: a last block that is shorter counts as filled up with zeros.
template <class T> __device__ void simulate_nvfp4(T *x, u64 rows, u64 columns, u32 lanes, f32 tensor, f32 sixfold) {
    u64 blocks = (columns + PIECE * lanes - 1) / (PIECE * lanes), pieces = rows * blocks * lanes;
    EACH_PIECE_IN_WARPS(pieces) {
        u64 row = piece / (blocks * lanes), column = piece % (blocks * lanes) * PIECE;
        u32 count = piece >= pieces || column >= columns ? 0 : columns - column < PIECE ? columns - column : PIECE;
        T *place = count == 0 ? x : x + row * columns + column;
        f32 values[PIECE];
        read_piece(place, count, values);
        f32 wished = __fdiv_rn(__uint_as_float(largest_of_lanes(largest_bits(values), lanes)), sixfold);
        f32 scale = e4m3_round(wished > E4M3_LARGEST ? E4M3_LARGEST : wished) * tensor;
        scale = scale >= 1e-5f ? scale : 1.0f;
        for (u32 i = 0; i < PIECE; i++) {
            f32 rounded = e2m1_round_magnitude(__fdiv_rn(fabsf(values[i]), scale)) * scale;
            values[i] = values[i] >= 0.0f ? rounded : -rounded;
        }
        if (count != 0) write_piece(values, count, place);
    }
}

#define DEFINE(T) \
    KERNEL(quantize_nvfp4, T)(const T *x, u64 pieces, u32 lanes, f32 tensor, f32 sixfold, u8 *codes, u8 *scales) { \
        quantize_nvfp4(x, pieces, lanes, tensor, sixfold, codes, scales); \
    } \
    KERNEL(quantize_nvfp4_fixed, T)(const T *x, u64 pieces, u32 lanes, f32 amax, f32 ceiling, f32 tensor, \
                                    const f32 *magnitudes, u8 *codes, u8 *scales) { \
        quantize_nvfp4_fixed(x, pieces, lanes, amax, ceiling, tensor, magnitudes, codes, scales); \
    } \
    KERNEL(dequantize_nvfp4, T)(const u8 *codes, u64 pieces, u32 lanes, f32 tensor, const u8 *scales, T *x) { \
        dequantize_nvfp4(codes, pieces, lanes, tensor, scales, x); \
    } \
    KERNEL(simulate_nvfp4, T)(T *x, u64 rows, u64 columns, u32 lanes, f32 tensor, f32 sixfold) { \
        simulate_nvfp4(x, rows, columns, lanes, tensor, sixfold); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
