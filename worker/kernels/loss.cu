// Likelihoods and divergences of predictions, block by block of the vocabulary. One block of threads for each row.
//
// The state of a row is carried from one block of the vocabulary to the next, all in f64:
//   likelihood: largest logit, Σ exp(logit − largest), the target's logit;
//   comparison: the same of the reference, then of the candidate, then Σ exp(ref − largest ref) · (ref − candidate).

// The largest of a row's logits.
template <class T> __device__ double row_max(const T *logits, u64 width) {
    f32 most = -INFINITE;
    for (u64 at = threadIdx.x; at < width; at += blockDim.x) most = fmaxf(most, widen(logits[at]));
    return (double)block_max(most);
}

// Takes a block's logits into [largest, sum, target]; returns the largest so far.
template <class T>
__device__ double take_in(const T *logits, u64 width, u64 first, u32 target, double *state) {
    double before = state[0];
    double most = fmax(before, row_max(logits, width));
    double sum = 0;
    for (u64 at = threadIdx.x; at < width; at += blockDim.x) sum += exp((double)widen(logits[at]) - most);
    sum = block_sum(sum);
    __syncthreads();
    if (threadIdx.x == 0) {
        state[1] = (before == most ? state[1] : state[1] * exp(before - most)) + sum;
        state[0] = most;
        if (target >= first && target - first < width) state[2] = (double)widen(logits[target - first]);
    }
    __syncthreads();
    return most;
}

template <class T>
__device__ void likelihood(const T *logits, const u32 *targets, u64 width, u64 first, double *states) {
    u64 row = blockIdx.x;
    take_in(logits + row * width, width, first, targets[row], states + 3 * row);
}

template <class T>
__device__ void comparison(const T *reference, const T *candidate, const u32 *targets, u64 width, u64 first,
                           double *states) {
    u64 row = blockIdx.x;
    double *state = states + 7 * row;
    reference += row * width;
    candidate += row * width;
    double before = state[0];
    double most = take_in(reference, width, first, targets[row], state);
    take_in(candidate, width, first, targets[row], state + 3);
    double cross = 0;
    for (u64 at = threadIdx.x; at < width; at += blockDim.x) {
        double of_reference = (double)widen(reference[at]);
        cross += exp(of_reference - most) * (of_reference - (double)widen(candidate[at]));
    }
    cross = block_sum(cross);
    if (threadIdx.x == 0) state[6] = (before == most ? state[6] : state[6] * exp(before - most)) + cross;
}

#define DEFINE(T) \
    KERNEL(likelihood, T)(const T *logits, const u32 *targets, u64 width, u64 first, double *states) { \
        likelihood(logits, targets, width, first, states); \
    } \
    KERNEL(comparison, T)(const T *reference, const T *candidate, const u32 *targets, u64 width, u64 first, \
                          double *states) { \
        comparison(reference, candidate, targets, width, first, states); \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
