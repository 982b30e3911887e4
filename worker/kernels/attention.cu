// The two halves of causal attention that are no matrix products. Scores are [heads, seq, seq] in f32, unscaled.

// Weights exp(score − max), rounded, and the sum of them unrounded. One block for each row of scores; what a row does not
// see, behind it or before its window, weighs nothing.
template <class T>
__device__ void attention_weights(const f32 *scores, T *weights, f32 *sums, u32 seq, u32 window, f32 scale) {
    u64 at = blockIdx.x;
    u32 row = at % seq;
    u32 first = window != 0 && row + 1 > window ? row + 1 - window : 0;
    scores += at * seq;
    weights += at * seq;
    f32 most = -INFINITE;
    for (u32 column = first + threadIdx.x; column <= row; column += blockDim.x)
        most = fmaxf(most, scores[column] * scale);
    most = block_max(most);
    f32 sum = 0;
    for (u32 column = threadIdx.x; column < seq; column += blockDim.x) {
        bool seen = column >= first && column <= row;
        f32 weight = seen ? expf(scores[column] * scale - most) : 0.0f;
        sum += weight;
        weights[column] = narrow<T>(weight);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[at] = sum;
}

// out[row, head] = round(values[head, row] / sums[head, row]): [heads, seq, head_dim] in f32 to [seq, heads · head_dim].
// One block for each head and row.
template <class T>
__device__ void attention_quotients(const f32 *values, const f32 *sums, T *out, u32 seq, u32 heads, u32 head_dim) {
    u64 at = blockIdx.x;
    u64 head = at / seq, row = at % seq;
    f32 sum = sums[at];
    for (u32 place = threadIdx.x; place < head_dim; place += blockDim.x)
        out[(row * heads + head) * head_dim + place] = narrow<T>(__fdiv_rn(values[at * head_dim + place], sum));
}

#define DEFINE(T) \
    KERNEL(attention_weights, T)(const f32 *scores, T *weights, f32 *sums, u32 seq, u32 window, f32 scale) { \
        attention_weights(scores, weights, sums, seq, window, scale); \
    } \
    KERNEL(attention_quotients, T)(const f32 *values, const f32 *sums, T *out, u32 seq, u32 heads, u32 head_dim) { \
        attention_quotients(values, sums, out, seq, heads, head_dim); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
