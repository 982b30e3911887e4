// cuBLASLt played by the host: the functions that the worker calls, for matrices by columns, with sums in f32 in order.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

using Status = int;
enum { INVALID_VALUE = 7, F32 = 0, F16 = 2, BF16 = 14, BIAS = 4 };

struct Product { int32_t a_transposed = 0, b_transposed = 0; uint32_t epilogue = 1; uint64_t bias = 0; };
struct Layout { int type; uint64_t rows, columns; int64_t stride; int32_t batch = 1; int64_t distance = 0; };
struct Preference { uint64_t workspace = 0; uint32_t reductions = ~0u, alignment[4] = {256, 256, 256, 256}; };
struct Algorithm { uint64_t data[8]; };
struct Found { Algorithm algorithm; size_t workspace; Status state; float waves; int reserved[4]; };

static size_t size(int type) { return type == F32 ? 4 : 2; }

static float read(int type, const char *at) {
    if (type == F32) { float x; memcpy(&x, at, 4); return x; }
    uint16_t bits;
    memcpy(&bits, at, 2);
    if (type == F16) { _Float16 x; memcpy(&x, &bits, 2); return (float)x; }
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

static void write(int type, char *at, float x) {
    if (type == F32) { memcpy(at, &x, 4); return; }
    if (type == F16) { _Float16 y = (_Float16)x; memcpy(at, &y, 2); return; }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t y = x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    memcpy(at, &y, 2);
}

// A matrix as f32, its first index the outer one: [rows][columns] of what a product takes, or exchanged.
static std::vector<float> unpacked(const Layout &layout, const char *at, bool by_rows) {
    std::vector<float> values(layout.rows * layout.columns);
    for (uint64_t column = 0; column < layout.columns; column++)
        for (uint64_t row = 0; row < layout.rows; row++) {
            float value = read(layout.type, at + (column * layout.stride + row) * size(layout.type));
            values[by_rows ? row * layout.columns + column : column * layout.rows + row] = value;
        }
    return values;
}

static bool fits(const Product &product, const Layout &a, const Layout &b, const Layout &d) {
    uint64_t m = product.a_transposed ? a.columns : a.rows, k = product.a_transposed ? a.rows : a.columns;
    uint64_t n = product.b_transposed ? b.rows : b.columns, l = product.b_transposed ? b.columns : b.rows;
    bool dense = a.stride >= (int64_t)a.rows && b.stride >= (int64_t)b.rows && d.stride >= (int64_t)d.rows;
    return k == l && m == d.rows && n == d.columns && dense && a.batch == b.batch && b.batch == d.batch && a.type == b.type;
}

// A product that stands on a stream.
struct Task { Product product; Layout a, b, d; const char *from_a, *from_b; char *to; };

static void multiply(void *queued) {
    std::unique_ptr<Task> task((Task *)queued);
    const auto &[product, a, b, d, from_a, from_b, to] = *task;
    uint64_t m = d.rows, n = d.columns, k = product.a_transposed ? a.rows : a.columns;
    for (int32_t index = 0; index < d.batch; index++) {
        // [k][m] and [n][k].
        auto left = unpacked(a, from_a + index * a.distance * size(a.type), product.a_transposed);
        auto right = unpacked(b, from_b + index * b.distance * size(b.type), product.b_transposed);
        char *out = to + index * d.distance * size(d.type);
        std::vector<float> sums(m);
        for (uint64_t column = 0; column < n; column++) {
            sums.assign(m, 0.0f);
            for (uint64_t depth = 0; depth < k; depth++) {
                float factor = right[column * k + depth];
                const float *row = left.data() + depth * m;
                for (uint64_t place = 0; place < m; place++) sums[place] += row[place] * factor;
            }
            for (uint64_t row = 0; row < m; row++) {
                float bias = product.epilogue == BIAS ? read(d.type, (char *)product.bias + row * size(d.type)) : 0.0f;
                write(d.type, out + (column * d.stride + row) * size(d.type), sums[row] + bias);
            }
        }
    }
}

extern "C" {
// The emulated driver's.
void emulated_queue(void *stream, void (*act)(void *), void *with);

Status cublasLtCreate(void **handle) { *handle = malloc(1); return 0; }
Status cublasLtDestroy(void *handle) { free(handle); return 0; }
Status cublasLtMatmulDescCreate(Product **product, int compute, int scale) {
    *product = new Product();
    // CUBLAS_COMPUTE_32F: f32 operands are not cut.
    return compute == 68 && scale == F32 ? 0 : INVALID_VALUE;
}
Status cublasLtMatmulDescDestroy(Product *product) { delete product; return 0; }
Status cublasLtMatmulDescSetAttribute(Product *product, int attribute, const void *value, size_t bytes) {
    switch (attribute) {
    case 3: memcpy(&product->a_transposed, value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    case 4: memcpy(&product->b_transposed, value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    case 7: memcpy(&product->epilogue, value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    case 8: memcpy(&product->bias, value, 8); return bytes == 8 ? 0 : INVALID_VALUE;
    default: return INVALID_VALUE;
    }
}
Status cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    *layout = new Layout{type, rows, columns, stride};
    return 0;
}
Status cublasLtMatrixLayoutDestroy(Layout *layout) { delete layout; return 0; }
Status cublasLtMatrixLayoutSetAttribute(Layout *layout, int attribute, const void *value, size_t bytes) {
    switch (attribute) {
    case 5: memcpy(&layout->batch, value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    case 6: memcpy(&layout->distance, value, 8); return bytes == 8 ? 0 : INVALID_VALUE;
    default: return INVALID_VALUE;
    }
}
Status cublasLtMatmulPreferenceCreate(Preference **preference) { *preference = new Preference(); return 0; }
Status cublasLtMatmulPreferenceDestroy(Preference *preference) { delete preference; return 0; }
Status cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t bytes) {
    switch (attribute) {
    case 1: memcpy(&preference->workspace, value, 8); return bytes == 8 ? 0 : INVALID_VALUE;
    case 3: memcpy(&preference->reductions, value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    case 5: case 6: case 7: case 8: memcpy(&preference->alignment[attribute - 5], value, 4); return bytes == 4 ? 0 : INVALID_VALUE;
    default: return INVALID_VALUE;
    }
}
Status cublasLtMatmulAlgoGetHeuristic(void *, const Product *product, const Layout *a, const Layout *b, const Layout *c,
                                      const Layout *d, const Preference *preference, int wanted, Found *found, int *count) {
    *count = wanted > 0 && fits(*product, *a, *b, *d) && fits(*product, *a, *b, *c) ? 1 : 0;
    *found = Found();
    // An algorithm works for operands that lie as it was promised.
    for (int place = 0; place < 4; place++) found->algorithm.data[place] = preference->alignment[place];
    return *count ? 0 : INVALID_VALUE;
}
Status cublasLtMatmulAlgoCheck(void *, const Product *product, const Layout *a, const Layout *b, const Layout *,
                               const Layout *d, const Algorithm *, Found *found) {
    *found = Found();
    return fits(*product, *a, *b, *d) ? 0 : INVALID_VALUE;
}
Status cublasLtMatmul(void *, const Product *product, const float *alpha, const char *from_a, const Layout *a,
                      const char *from_b, const Layout *b, const float *beta, const char *, const Layout *, char *to,
                      const Layout *d, const Algorithm *algorithm, void *, size_t, void *stream) {
    if (!fits(*product, *a, *b, *d) || *alpha != 1 || *beta != 0) return INVALID_VALUE;
    const char *places[] = {from_a, from_b, to, to};
    for (int place = 0; place < 4; place++)
        if ((uintptr_t)places[place] % algorithm->data[place] != 0) return INVALID_VALUE;
    emulated_queue(stream, multiply, new Task{*product, *a, *b, *d, from_a, from_b, to});
    return 0;
}
}
