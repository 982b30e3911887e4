// Sixteen elements of a thread: read and written together where they lie together, and the scales that matrices have of them.

#define PIECE 16

struct alignas(16) Quad { u32 words[4]; };

__device__ __forceinline__ bool is_aligned(const void *address) { return ((u64)address & 15u) == 0; }

__device__ __forceinline__ void spread(u32 word, f32 *values, f32) { values[0] = __uint_as_float(word); }
template <class T> __device__ __forceinline__ void spread(u32 word, f32 *values, T) {
    T low, high;
    low.bits = (u16)word;
    high.bits = (u16)(word >> 16);
    values[0] = widen(low);
    values[1] = widen(high);
}

// The first `count` of sixteen elements; what is behind them is zero.
template <class T> __device__ __forceinline__ void read_piece(const T *from, u32 count, f32 *values) {
    if (count == PIECE && is_aligned(from)) {
        const u32 each = 4 / sizeof(T);
        for (u32 quad = 0; quad < sizeof(T); quad++) {
            Quad loaded = ((const Quad *)from)[quad];
            for (u32 word = 0; word < 4; word++) spread(loaded.words[word], values + (4 * quad + word) * each, T());
        }
        return;
    }
    for (u32 at = 0; at < PIECE; at++) values[at] = at < count ? widen(from[at]) : 0.0f;
}

template <class T> __device__ __forceinline__ void write_piece(const f32 *values, u32 count, T *to) {
    alignas(16) T narrowed[PIECE];
    for (u32 at = 0; at < PIECE; at++) narrowed[at] = narrow<T>(values[at]);
    if (count == PIECE && is_aligned(to)) {
        for (u32 quad = 0; quad < sizeof(T); quad++) ((Quad *)to)[quad] = ((const Quad *)narrowed)[quad];
        return;
    }
    for (u32 at = 0; at < count; at++) to[at] = narrowed[at];
}

// Codes of a byte each.
__device__ __forceinline__ void write_codes(const u8 *codes, u32 count, u8 *to) {
    if (count == PIECE && is_aligned(to)) {
        *(Quad *)to = *(const Quad *)codes;
        return;
    }
    for (u32 at = 0; at < count; at++) to[at] = codes[at];
}

// Codes of four bits, two a byte: eight bytes at an address that eight divides.
__device__ __forceinline__ void write_nibbles(const u8 *codes, bool first_is_low, u8 *to) {
    u64 packed = 0;
    for (u32 at = 0; at < PIECE; at += 2) {
        u64 byte = first_is_low ? codes[at] | codes[at + 1] << 4 : codes[at] << 4 | codes[at + 1];
        packed |= byte << (4 * at);
    }
    *(u64 *)to = packed;
}

// The largest magnitude, as bits: NaN is above all numbers.
__device__ __forceinline__ u32 largest_bits(const f32 *values) {
    u32 most = 0;
    for (u32 at = 0; at < PIECE; at++) {
        u32 bits = __float_as_uint(values[at]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most;
}

// The largest of what some neighbouring lanes have, a power of two of them. All lanes of a warp take part.
__device__ __forceinline__ u32 largest_of_lanes(u32 bits, u32 lanes) {
    for (u32 step = lanes / 2; step > 0; step /= 2) {
        u32 other = __shfl_xor_sync(0xffffffffu, bits, step);
        bits = other > bits ? other : bits;
    }
    return bits;
}

// A matrix of rows of `columns`, cut into runs of `width` columns and `height` rows that share a scale.
struct Runs { u64 rows, columns, width, height, across; };

// Every piece of every row, those of a row one after the other; the last one may be shorter.
#define EACH_PIECE_OF_ROWS(RUNS) \
    u64 in_row = ((RUNS).columns + PIECE - 1) / PIECE; \
    for (u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; piece < (RUNS).rows * in_row; \
         piece += (u64)gridDim.x * blockDim.x)

// Where a piece of a row lies, and how many elements it has.
#define PLACE_IN_ROW(RUNS) \
    u64 row = piece / in_row, column = piece % in_row * PIECE, at = row * (RUNS).columns + column; \
    u32 own = (RUNS).columns - column < PIECE ? (RUNS).columns - column : PIECE;

// The scale of each element of a piece of a row.
__device__ __forceinline__ void scales_of_piece(const f32 *scales, const Runs &runs, u64 row, u64 column, u32 count, f32 *own) {
    scales += row / runs.height * runs.across;
    u64 run = column / runs.width, left = (run + 1) * runs.width - column;
    for (u32 at = 0; at < count; at++) {
        own[at] = scales[run];
        if (--left == 0) {
            run++;
            left = runs.width;
        }
    }
}

// Codes of a byte each under a scale for each run, as `code` makes one of a quotient.
template <class T, class Code>
__device__ __forceinline__ void quantize_runs(const T *x, Runs runs, const f32 *scales, u8 *codes, Code code) {
    EACH_PIECE_OF_ROWS(runs) {
        PLACE_IN_ROW(runs)
        f32 values[PIECE], scale[PIECE];
        alignas(16) u8 bytes[PIECE];
        read_piece(x + at, own, values);
        scales_of_piece(scales, runs, row, column, own, scale);
        for (u32 i = 0; i < own; i++) bytes[i] = code(__fdiv_rn(values[i], scale[i]));
        write_codes(bytes, own, codes + at);
    }
}

// What they stand for, as `value` reads one.
template <class T, class Value>
__device__ __forceinline__ void dequantize_runs(const u8 *codes, Runs runs, const f32 *scales, T *x, Value value) {
    EACH_PIECE_OF_ROWS(runs) {
        PLACE_IN_ROW(runs)
        f32 values[PIECE], scale[PIECE];
        scales_of_piece(scales, runs, row, column, own, scale);
        for (u32 i = 0; i < own; i++) values[i] = value(codes[at + i]) * scale[i];
        write_piece(values, own, x + at);
    }
}

// The pieces of a flat weight, in whole warps, so that lanes can exchange what they have.
#define EACH_PIECE_IN_WARPS(COUNT) \
    u64 stride = (u64)gridDim.x * blockDim.x; \
    u64 turns = ((COUNT) + stride - 1) / stride; \
    u64 piece = (u64)blockIdx.x * blockDim.x + threadIdx.x; \
    for (u64 turn = 0; turn < turns; turn++, piece += stride)
