// E4M3 as the CPU has it (worker/src/quantize/codec/e4m3.rs): nearest, ties to even, saturating at 448, NaN kept.

#define E4M3_LARGEST 448.0f
#define E4M3_SMALLEST 0.001953125f

__device__ __forceinline__ u32 e4m3_rounded_bits(u32 bits) { return bits + 0x7ffffu + (bits >> 20 & 1u); }

// The code of a magnitude from 0 to 448.
__device__ __forceinline__ u8 e4m3_magnitude_code(f32 magnitude) {
    u32 normal = (e4m3_rounded_bits(__float_as_uint(magnitude)) >> 20) - (120u << 3);
    u32 subnormal = __float_as_uint(magnitude + 16384.0f) - 0x46800000u;
    return (u8)(magnitude < 0.015625f ? subnormal : normal);
}

__device__ __forceinline__ u8 e4m3_code(f32 value) {
    u8 sign = (u8)(__float_as_uint(value) >> 24 & 0x80u);
    f32 magnitude = fabsf(value);
    if (magnitude != magnitude) return sign | 0x7f;
    return sign | e4m3_magnitude_code(magnitude > E4M3_LARGEST ? E4M3_LARGEST : magnitude);
}

__device__ __forceinline__ f32 e4m3_value(u8 code) {
    u32 exponent = code >> 3 & 15u, mantissa = code & 7u;
    f32 magnitude = exponent == 0 ? (f32)mantissa * E4M3_SMALLEST : __uint_as_float((exponent + 120u) << 23 | mantissa << 20);
    if ((code & 0x7f) == 0x7f) magnitude = __uint_as_float(0x7fc00000u);
    return code & 0x80 ? -magnitude : magnitude;
}

// The nearest value, with the sign of what it came from.
__device__ __forceinline__ f32 e4m3_round(f32 value) {
    f32 magnitude = fabsf(value);
    f32 bounded = magnitude > E4M3_LARGEST ? E4M3_LARGEST : magnitude;
    f32 normal = __uint_as_float(e4m3_rounded_bits(__float_as_uint(bounded)) & 0xfff00000u);
    f32 subnormal = (bounded + 16384.0f) - 16384.0f;
    f32 rounded = bounded >= 0.015625f ? normal : subnormal;
    return __uint_as_float((__float_as_uint(rounded) & 0x7fffffffu) | (__float_as_uint(value) & 0x80000000u));
}

// What a value is multiplied with before it is rounded, under a largest magnitude: two roundings, as in torch.
__device__ __forceinline__ f32 e4m3_factor(f32 amax) {
    return amax > 5.9604644775390625e-8f ? __fdiv_rn(1.0f, amax) * E4M3_LARGEST : E4M3_LARGEST;
}
