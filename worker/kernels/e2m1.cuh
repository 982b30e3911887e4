// E2M1 as the CPU has it (worker/src/quantize/codec/e2m1.rs): ±{0, ½, 1, 1½, 2, 3, 4, 6}.

// The code of a magnitude; a tie goes to the even code, NaN to 0.
__device__ __forceinline__ u8 e2m1_magnitude_code(f32 x) {
    return (x > 0.25f) + (x >= 0.75f) + (x > 1.25f) + (x >= 1.75f) + (x > 2.5f) + (x >= 3.5f) + (x > 5.0f);
}

// All below zero has the sign's bit, even where it rounds to zero.
__device__ __forceinline__ u8 e2m1_code(f32 value) {
    return (u8)((value < 0.0f ? 8 : 0) | e2m1_magnitude_code(fabsf(value)));
}

__device__ __forceinline__ f32 e2m1_value(u32 code) {
    u32 exponent = code >> 1 & 3u, mantissa = code & 1u;
    f32 magnitude = exponent == 0 ? (f32)mantissa * 0.5f : __uint_as_float((exponent + 126u) << 23 | mantissa << 22);
    return code & 8u ? -magnitude : magnitude;
}

// The nearest magnitude, ties to the even code; NaN stays NaN.
__device__ __forceinline__ f32 e2m1_round_magnitude(f32 magnitude) {
    f32 step = magnitude < 2.0f ? 0.5f : magnitude < 4.0f ? 1.0f : 2.0f;
    f32 inverse = magnitude < 2.0f ? 2.0f : magnitude < 4.0f ? 1.0f : 0.5f;
    f32 rounded = rintf(magnitude * inverse) * step;
    return rounded > 6.0f ? 6.0f : rounded;
}
