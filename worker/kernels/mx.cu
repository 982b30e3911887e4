// Codes in blocks of 32 under powers of two, and what they stand for; the same rounding in place. Two lanes share a block.

// The byte of the smallest power of two that `magnitude / largest` does not exceed, from 2^-127 on.
__device__ __forceinline__ u32 power_byte(f32 magnitude, f32 largest) {
    u32 bits = __float_as_uint(__fdiv_rn(magnitude, largest));
    u32 exponent = bits >> 23, mantissa = bits & 0x7fffffu;
    return (exponent + (exponent == 0 ? mantissa > 0x400000u : mantissa != 0)) & 255u;
}

__device__ __forceinline__ f32 power_value(u32 byte) { return __uint_as_float(byte == 0 ? 0x400000u : byte << 23); }
__device__ __forceinline__ f32 power_inverse(u32 byte) { return power_value((254u - byte) & 255u); }

// How each format's elements are rounded: their largest value, the code of a scaled value, a code's value, and the nearest
// value of a scaled magnitude, ties to even.
struct mxfp4 {
    static __device__ __forceinline__ f32 largest() { return 6.0f; }
    // Ties go down, towards zero, and all that is not above zero has the sign's bit.
    static __device__ __forceinline__ u8 code(f32 value) {
        f32 x = fabsf(value);
        return (value > 0.0f ? 0 : 8) + (x > 0.25f) + (x > 0.75f) + (x > 1.25f) + (x > 1.75f) + (x > 2.5f) + (x > 3.5f) + (x > 5.0f);
    }
    static __device__ __forceinline__ f32 value(u8 code) { return e2m1_value(code); }
    static __device__ __forceinline__ f32 round_magnitude(f32 x) { return e2m1_round_magnitude(x); }
};

struct mxfp6 {
    static __device__ __forceinline__ f32 largest() { return 28.0f; }
    static __device__ __forceinline__ u8 code(f32 value) {
        f32 rounded = round_magnitude(fabsf(value));
        u32 normal = (__float_as_uint(rounded) >> 21) - (124u << 2);
        u32 subnormal = __float_as_uint(rounded + 524288.0f);
        return (u8)((__float_as_uint(value) >> 26 & 0x20u) | ((rounded < 0.25f ? subnormal : normal) & 0x1fu));
    }
    static __device__ __forceinline__ f32 value(u8 code) {
        u32 exponent = code >> 2 & 7u, mantissa = code & 3u;
        f32 x = exponent == 0 ? (f32)mantissa * 0.0625f : __uint_as_float((exponent + 124u) << 23 | mantissa << 21);
        return code & 0x20 ? -x : x;
    }
    static __device__ __forceinline__ f32 round_magnitude(f32 x) {
        u32 bits = __float_as_uint(x);
        f32 normal = __uint_as_float((bits + 0xfffffu + (bits >> 21 & 1u)) & 0xffe00000u);
        f32 subnormal = (x + 524288.0f) - 524288.0f;
        f32 rounded = x < 0.25f ? subnormal : normal;
        return x != x ? x : x > 28.0f ? 28.0f : rounded;
    }
};

struct mxfp8 {
    static __device__ __forceinline__ f32 largest() { return E4M3_LARGEST; }
    static __device__ __forceinline__ u8 code(f32 value) { return e4m3_code(value); }
    static __device__ __forceinline__ f32 value(u8 code) { return e4m3_value(code); }
    static __device__ __forceinline__ f32 round_magnitude(f32 x) { return e4m3_round(x); }
};

struct mxint8 {
    static __device__ __forceinline__ f32 largest() { return 127.0f; }
    static __device__ __forceinline__ u8 code(f32 value) {
        f32 rounded = round_magnitude(fabsf(value));
        u32 sign = __float_as_uint(value) & 0x80000000u;
        return (u8)__float_as_uint(__uint_as_float((__float_as_uint(rounded) & 0x7fffffffu) | sign) + 12582912.0f);
    }
    static __device__ __forceinline__ f32 value(u8 code) { return (f32)(signed char)code; }
    static __device__ __forceinline__ f32 round_magnitude(f32 x) {
        return ((x > 127.0f ? 127.0f : x) + 12582912.0f) - 12582912.0f;
    }
};

template <class Element, bool TWO_A_BYTE, class T>
__device__ void quantize_mx(const T *x, u64 pieces, u8 *codes, u8 *scales) {
    EACH_PIECE_IN_WARPS(pieces) {
        f32 values[PIECE];
        alignas(16) u8 own[PIECE];
        bool is_there = piece < pieces;
        read_piece(is_there ? x + piece * PIECE : x, is_there ? PIECE : 0, values);
        u32 byte = power_byte(__uint_as_float(largest_of_lanes(largest_bits(values), 2)), Element::largest());
        if (!is_there) continue;
        f32 factor = power_inverse(byte);
        for (u32 i = 0; i < PIECE; i++) own[i] = Element::code(values[i] * factor);
        if (TWO_A_BYTE) write_nibbles(own, true, codes + piece * PIECE / 2);
        else write_codes(own, PIECE, codes + piece * PIECE);
        if (piece % 2 == 0) scales[piece / 2] = (u8)byte;
    }
}

template <class Element, bool TWO_A_BYTE, class T>
__device__ void dequantize_mx(const u8 *codes, u64 pieces, const u8 *scales, T *x) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece < pieces; piece += stride) {
        f32 values[PIECE], scale = power_value(scales[piece / 2]);
        for (u32 i = 0; i < PIECE; i++) {
            u64 at = piece * PIECE + i;
            u8 code = TWO_A_BYTE ? codes[at / 2] >> (4 * (at % 2)) & 15 : codes[at];
            values[i] = Element::value(code) * scale;
        }
        write_piece(values, PIECE, x + piece * PIECE);
    }
}

// Rows of any length in place: a last block that is shorter counts as filled up with zeros.
template <class Element, class T> __device__ void simulate_mx(T *x, u64 rows, u64 columns) {
    u64 in_row = (columns + 2 * PIECE - 1) / (2 * PIECE) * 2, pieces = rows * in_row;
    EACH_PIECE_IN_WARPS(pieces) {
        u64 row = piece / in_row, column = piece % in_row * PIECE;
        u32 count = piece >= pieces || column >= columns ? 0 : columns - column < PIECE ? columns - column : PIECE;
        T *place = count == 0 ? x : x + row * columns + column;
        f32 values[PIECE];
        read_piece(place, count, values);
        f32 largest = __uint_as_float(largest_of_lanes(largest_bits(values), 2));
        // Blocks of zeros and blocks that are not finite are rounded under 1.
        bool is_plain = !(largest > 0.0f && largest < INFINITE);
        u32 byte = is_plain ? 127u : power_byte(largest, Element::largest());
        f32 scale = power_value(byte), factor = power_inverse(byte);
        for (u32 i = 0; i < PIECE; i++) {
            f32 rounded = Element::round_magnitude(fabsf(values[i]) * factor) * scale;
            values[i] = values[i] < 0.0f ? -rounded : rounded;
        }
        if (count != 0) write_piece(values, count, place);
    }
}

#define DEFINE_OF(FORMAT, TWO_A_BYTE, T) \
    KERNEL(quantize_##FORMAT, T)(const T *x, u64 pieces, u8 *codes, u8 *scales) { \
        quantize_mx<FORMAT, TWO_A_BYTE>(x, pieces, codes, scales); \
    } \
    KERNEL(dequantize_##FORMAT, T)(const u8 *codes, u64 pieces, const u8 *scales, T *x) { \
        dequantize_mx<FORMAT, TWO_A_BYTE>(codes, pieces, scales, x); \
    } \
    KERNEL(simulate_##FORMAT, T)(T *x, u64 rows, u64 columns) { simulate_mx<FORMAT>(x, rows, columns); }
#define DEFINE(T) DEFINE_OF(mxfp4, true, T) DEFINE_OF(mxfp6, false, T) DEFINE_OF(mxfp8, false, T) DEFINE_OF(mxint8, false, T)
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
#undef DEFINE_OF
