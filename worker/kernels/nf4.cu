// NF4 codes in flat blocks of 64, two a byte with the first in the high half, and what they stand for. Four lanes share a
// block; its magnitude is quantized again by the host.

#define NF4_BLOCK 64

__device__ __forceinline__ f32 nf4_quantile(u32 code) {
    const f32 quantiles[16] = {-1.0f,        -0.6961928f,  -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f,
                               -0.091050036f, 0.0f,        0.0795803f,   0.1609302f,  0.2461123f,   0.33791524f,
                               0.44070983f,  0.562617f,    0.72295684f,  1.0f};
    return quantiles[code];
}

template <class T> __device__ void quantize_nf4(const T *x, u64 count, u8 *codes, f32 *magnitudes) {
    f32 middles[15];
    for (u32 i = 0; i < 15; i++) middles[i] = (nf4_quantile(i) + nf4_quantile(i + 1)) / 2.0f;
    u64 pieces = (count + PIECE - 1) / PIECE;
    EACH_PIECE_IN_WARPS(pieces) {
        u64 at = piece * PIECE, block = at / NF4_BLOCK;
        u32 there = piece >= pieces ? 0 : count - at < PIECE ? count - at : PIECE;
        f32 values[PIECE];
        u8 own[PIECE];
        read_piece(there == 0 ? x : x + at, there, values);
        f32 magnitude = __uint_as_float(largest_of_lanes(largest_bits(values), NF4_BLOCK / PIECE));
        if (there == 0) continue;
        f32 divisor = magnitude < 1e-38f ? 1e-38f : magnitude;
        // A block is multiplied by the inverse, a last one that is shorter is divided.
        bool is_whole = (block + 1) * NF4_BLOCK <= count;
        f32 factor = __fdiv_rn(1.0f, divisor);
        for (u32 i = 0; i < PIECE; i++) {
            f32 value = is_whole ? values[i] * factor : __fdiv_rn(values[i], divisor);
            u8 code = 0;
            for (u32 middle = 0; middle < 15; middle++) code += value > middles[middle];
            own[i] = code;
        }
        if (there == PIECE) write_nibbles(own, false, codes + at / 2);
        else for (u32 i = 0; i < there; i += 2) codes[(at + i) / 2] = (u8)(own[i] << 4 | own[i + 1]);
        if (at % NF4_BLOCK == 0) magnitudes[block] = magnitude;
    }
}

template <class T> __device__ void dequantize_nf4(const u8 *codes, u64 count, const f32 *map, const f32 *magnitudes, T *x) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += stride) {
        u32 code = at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
        x[at] = narrow<T>(map[code] * magnitudes[at / NF4_BLOCK]);
    }
}

#define DEFINE(T) \
    KERNEL(quantize_nf4, T)(const T *x, u64 count, u8 *codes, f32 *magnitudes) { quantize_nf4(x, count, codes, magnitudes); } \
    KERNEL(dequantize_nf4, T)(const u8 *codes, u64 count, const f32 *map, const f32 *magnitudes, T *x) { \
        dequantize_nf4(codes, count, map, magnitudes, x); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
