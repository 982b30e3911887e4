// E4M3 codes under one scale, or under one for each run, and what they stand for; the same rounding in place.

// The quotient is rounded to the element type first where there is one scale.
template <class T> __device__ void quantize_fp8(const T *x, u64 count, f32 scale, u8 *codes) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece * PIECE < count; piece += step) {
        u64 at = piece * PIECE;
        u32 own = count - at < PIECE ? count - at : PIECE;
        f32 values[PIECE];
        alignas(16) u8 bytes[PIECE];
        read_piece(x + at, own, values);
        for (u32 i = 0; i < PIECE; i++) bytes[i] = e4m3_code(rounded<T>(__fdiv_rn(values[i], scale)));
        write_codes(bytes, own, codes + at);
    }
}

struct E4m3Code { __device__ u8 operator()(f32 value) const { return e4m3_code(value); } };
struct E4m3Value { __device__ f32 operator()(u8 code) const { return e4m3_value(code); } };

template <class T> __device__ void simulate_fp8(T *x, u64 count, f32 factor) {
    f32 inverse = __fdiv_rn(1.0f, factor);
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece * PIECE < count; piece += step) {
        u64 at = piece * PIECE;
        u32 own = count - at < PIECE ? count - at : PIECE;
        f32 values[PIECE];
        read_piece(x + at, own, values);
        for (u32 i = 0; i < PIECE; i++) values[i] = e4m3_round(values[i] * factor) * inverse;
        write_piece(values, own, x + at);
    }
}

// Each row under its own largest magnitude. One block for each row.
template <class T> __device__ void simulate_fp8_rows(T *x, u64 columns) {
    x += (u64)blockIdx.x * columns;
    u32 bits = 0;
    for (u64 at = threadIdx.x; at < columns; at += blockDim.x) {
        u32 own = __float_as_uint(widen(x[at])) & 0x7fffffffu;
        bits = own > bits ? own : bits;
    }
    f32 factor = e4m3_factor(__uint_as_float(block_largest(bits)));
    f32 inverse = __fdiv_rn(1.0f, factor);
    for (u64 at = threadIdx.x; at < columns; at += blockDim.x)
        x[at] = narrow<T>(e4m3_round(widen(x[at]) * factor) * inverse);
}

#define DEFINE(T) \
    KERNEL(quantize_fp8, T)(const T *x, u64 count, f32 scale, u8 *codes) { quantize_fp8(x, count, scale, codes); } \
    KERNEL(quantize_fp8_runs, T)(const T *x, u64 rows, u64 columns, u64 width, u64 height, u64 across, const f32 *scales, \
                                 u8 *codes) { \
        quantize_runs(x, Runs{rows, columns, width, height, across}, scales, codes, E4m3Code()); \
    } \
    KERNEL(dequantize_fp8_runs, T)(const u8 *codes, u64 rows, u64 columns, u64 width, u64 height, u64 across, \
                                   const f32 *scales, T *x) { \
        dequantize_runs(codes, Runs{rows, columns, width, height, across}, scales, x, E4m3Value()); \
    } \
    KERNEL(simulate_fp8, T)(T *x, u64 count, f32 factor) { simulate_fp8(x, count, factor); } \
    KERNEL(simulate_fp8_rows, T)(T *x, u64 columns) { simulate_fp8_rows(x, columns); }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
