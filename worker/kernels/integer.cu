// INT8 and INT4 codes under a scale for each run, and what they stand for; the same rounding in place under one scale.

__device__ __forceinline__ f32 integer_bounded(f32 value, f32 largest) {
    value = value > largest ? largest : value;
    return value < -largest - 1.0f ? -largest - 1.0f : value;
}

// The nearest whole number, ties to even, in the low bits.
__device__ __forceinline__ u8 integer_code(f32 value, f32 largest) {
    return (u8)__float_as_uint(integer_bounded(value, largest) + 12582912.0f);
}

struct Int8Code { __device__ u8 operator()(f32 value) const { return integer_code(value, 127.0f); } };
struct Int8Value { __device__ f32 operator()(u8 code) const { return (f32)(signed char)code; } };

// Two rows a byte, the even one in the low half; `runs.rows` counts pairs.
template <class T> __device__ void quantize_int4_pairs(const T *x, Runs runs, const f32 *scales, u8 *codes) {
    EACH_PIECE_OF_ROWS(runs) {
        PLACE_IN_ROW(runs)
        f32 values[PIECE], scale[PIECE];
        alignas(16) u8 bytes[PIECE];
        for (u32 odd = 0; odd < 2; odd++) {
            read_piece(x + at + (row + odd) * runs.columns, own, values);
            scales_of_piece(scales, runs, 2 * row + odd, column, own, scale);
            for (u32 i = 0; i < own; i++) {
                u8 code = integer_code(__fdiv_rn(values[i], scale[i]), 7.0f);
                bytes[i] = odd ? (u8)(bytes[i] | code << 4) : (u8)(code & 15);
            }
        }
        write_codes(bytes, own, codes + at);
    }
}

template <class T> __device__ void dequantize_int4_pairs(const u8 *codes, Runs runs, const f32 *scales, T *x) {
    EACH_PIECE_OF_ROWS(runs) {
        PLACE_IN_ROW(runs)
        f32 values[PIECE], scale[PIECE];
        for (u32 odd = 0; odd < 2; odd++) {
            scales_of_piece(scales, runs, 2 * row + odd, column, own, scale);
            for (u32 i = 0; i < own; i++) {
                int nibble = odd ? codes[at + i] >> 4 : codes[at + i] & 15;
                values[i] = (f32)(nibble >= 8 ? nibble - 16 : nibble) * scale[i];
            }
            write_piece(values, own, x + at + (row + odd) * runs.columns);
        }
    }
}

template <class T> __device__ void simulate_int8(T *x, u64 count, f32 factor, f32 divisor) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
        f32 value = widen(x[at]) * factor;
        f32 rounded = (integer_bounded(value, 127.0f) + 12582912.0f) - 12582912.0f;
        u32 bits = (__float_as_uint(rounded) & 0x7fffffffu) | (__float_as_uint(value) & 0x80000000u);
        x[at] = narrow<T>(__fdiv_rn(__uint_as_float(bits), divisor));
    }
}

#define DEFINE(T) \
    KERNEL(quantize_int8_runs, T)(const T *x, u64 rows, u64 columns, u64 width, u64 height, u64 across, const f32 *scales, \
                                  u8 *codes) { \
        quantize_runs(x, Runs{rows, columns, width, height, across}, scales, codes, Int8Code()); \
    } \
    KERNEL(dequantize_int8_runs, T)(const u8 *codes, u64 rows, u64 columns, u64 width, u64 height, u64 across, \
                                    const f32 *scales, T *x) { \
        dequantize_runs(codes, Runs{rows, columns, width, height, across}, scales, x, Int8Value()); \
    } \
    KERNEL(quantize_int4_pairs, T)(const T *x, u64 rows, u64 columns, u64 width, u64 height, u64 across, const f32 *scales, \
                                   u8 *codes) { \
        quantize_int4_pairs(x, Runs{rows, columns, width, height, across}, scales, codes); \
    } \
    KERNEL(dequantize_int4_pairs, T)(const u8 *codes, u64 rows, u64 columns, u64 width, u64 height, u64 across, \
                                     const f32 *scales, T *x) { \
        dequantize_int4_pairs(codes, Runs{rows, columns, width, height, across}, scales, x); \
    } \
    KERNEL(simulate_int8, T)(T *x, u64 count, f32 factor, f32 divisor) { simulate_int8(x, count, factor, divisor); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
