// Streams, events and memory of the emulated GPU. What is queued on a stream stands there until somebody waits for it, or until the
// stream's mood says so; streams overtake each other wherever no event orders them, as far as a real GPU's might. Memory is noise until
// it is written and once it was given back, both in the order of its stream, and has a fence behind it. So a missing event shows as
// noise among the results.
//
// EMULATED_ORDER is the seed of the moods (1), EMULATED_MEMORY how many bytes each GPU has.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>

using Status = int;
enum { OUT_OF_MEMORY = 2, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600 };

static std::recursive_mutex one_at_a_time;
using Lock = std::lock_guard<std::recursive_mutex>;

static unsigned long long setting(const char *name, unsigned long long otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

struct Stream;
// A place in a stream, which is passed once.
struct Mark { Stream *stream; bool passed; };
struct Deed { std::function<void()> act; std::shared_ptr<Mark> awaited; };
struct Stream { std::deque<Deed> queue; unsigned queued; bool is_eager; };
struct Event { std::shared_ptr<Mark> mark; };

static std::set<Stream *> streams;
static Stream *default_stream() {
    static Stream *own = *streams.insert(new Stream()).first;
    return own;
}
static Stream &stream_of(void *handle) { return handle ? *(Stream *)handle : *default_stream(); }

static uint64_t drawn() {
    static uint64_t state = setting("EMULATED_ORDER", 1) * 0x9e3779b97f4a7c15u + 1;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

// Does what is queued up to a mark, or all of it. Where that waits for another stream, that one goes on first if it must be.
static void advance(Stream &stream, const Mark *until, bool must_be) {
    while (!stream.queue.empty() && !(until && until->passed)) {
        auto awaited = stream.queue.front().awaited;
        if (awaited && !awaited->passed) {
            if (!must_be) return;
            advance(*awaited->stream, awaited.get(), true);
        }
        auto act = std::move(stream.queue.front().act);
        stream.queue.pop_front();
        act();
    }
}

// A stream stays idle, or does all that it can, for some deeds.
static const unsigned MOOD = 48;

static void queue(void *handle, std::function<void()> act, std::shared_ptr<Mark> awaited = nullptr) {
    Stream &own = stream_of(handle);
    own.queue.push_back({std::move(act), std::move(awaited)});
    if (own.queued++ % MOOD == 0) own.is_eager = drawn() >> 32 & 1;
    for (Stream *stream : streams)
        if (stream->is_eager) advance(*stream, nullptr, false);
}

static void finish_all() {
    for (Stream *stream : streams) advance(*stream, nullptr, true);
}

// ---- memory ----
static size_t taken, most_taken;
static const size_t FENCE = 64, HEAD = 256, KEPT = 64 << 20;
static size_t memory() { return setting("EMULATED_MEMORY", (size_t)16 << 30); }
static thread_local void *current;
// What was given back stays for a while: who still uses it finds noise.
static std::deque<std::pair<char *, size_t>> given_back;
static size_t given_back_bytes;

static Status allocate(uint64_t *address, size_t bytes, void *stream) {
    Lock lock(one_at_a_time);
    if (!current) return INVALID_CONTEXT;
    if (taken + bytes > memory()) return OUT_OF_MEMORY;
    char *place = (char *)aligned_alloc(HEAD, (HEAD + bytes + FENCE + HEAD - 1) / HEAD * HEAD);
    memcpy(place, &bytes, sizeof bytes);
    memset(place + HEAD + bytes, 0xff, FENCE);
    taken += bytes;
    most_taken = taken > most_taken ? taken : most_taken;
    queue(stream, [=] { memset(place + HEAD, 0xff, bytes); });
    *address = (uint64_t)(uintptr_t)(place + HEAD);
    return 0;
}

static Status give_back(uint64_t address, void *stream) {
    Lock lock(one_at_a_time);
    char *place = (char *)(uintptr_t)address - HEAD;
    size_t bytes;
    memcpy(&bytes, place, sizeof bytes);
    taken -= bytes;
    queue(stream, [=] {
        for (size_t at = 0; at < FENCE; at++) {
            if (place[HEAD + bytes + at] == (char)0xff) continue;
            fprintf(stderr, "emulated GPU: something was written behind %zu bytes of memory\n", bytes);
            abort();
        }
        memset(place + HEAD, 0xff, bytes);
        given_back.push_back({place, bytes});
        for (given_back_bytes += bytes; given_back_bytes > KEPT; given_back.pop_front()) {
            given_back_bytes -= given_back.front().second;
            free(given_back.front().first);
        }
    });
    return 0;
}

// Memory of the host that the GPU reads and writes itself, while the host goes on.
static std::map<char *, size_t> pinned;
static bool is_pinned(const void *place) {
    auto behind = pinned.upper_bound((char *)place);
    if (behind == pinned.begin()) return false;
    auto own = std::prev(behind);
    return (char *)place < own->first + own->second;
}

extern "C" {
// The most bytes that were taken at once since the last time that somebody asked.
size_t emulated_peak() {
    Lock lock(one_at_a_time);
    size_t peak = most_taken;
    most_taken = taken;
    return peak;
}
// What other libraries do on a stream.
void emulated_queue(void *stream, void (*act)(void *), void *with) {
    Lock lock(one_at_a_time);
    queue(stream, [=] { act(with); });
}

Status cuCtxSynchronize() {
    Lock lock(one_at_a_time);
    finish_all();
    return 0;
}
Status cuStreamCreate(void **stream, unsigned) {
    Lock lock(one_at_a_time);
    *stream = *streams.insert(new Stream()).first;
    return 0;
}
Status cuStreamDestroy_v2(void *stream) {
    Lock lock(one_at_a_time);
    advance(stream_of(stream), nullptr, true);
    // Marks in it may still be asked for.
    return 0;
}
Status cuStreamSynchronize(void *stream) {
    Lock lock(one_at_a_time);
    advance(stream_of(stream), nullptr, true);
    return 0;
}
Status cuStreamWaitEvent(void *stream, Event *event, unsigned) {
    Lock lock(one_at_a_time);
    if (event->mark) queue(stream, [] {}, event->mark);
    return 0;
}
Status cuEventCreate(Event **event, unsigned) { *event = new Event(); return 0; }
Status cuEventRecord(Event *event, void *stream) {
    Lock lock(one_at_a_time);
    auto mark = std::make_shared<Mark>(Mark{&stream_of(stream), false});
    event->mark = mark;
    queue(stream, [mark] { mark->passed = true; });
    return 0;
}
Status cuEventQuery(Event *event) {
    Lock lock(one_at_a_time);
    if (!event->mark || event->mark->passed) return 0;
    // Who asks again and again gets there.
    event->mark->stream->is_eager = true;
    advance(*event->mark->stream, event->mark.get(), drawn() >> 32 & 1);
    return event->mark->passed ? 0 : NOT_READY;
}
Status cuEventSynchronize(Event *event) {
    Lock lock(one_at_a_time);
    if (event->mark) advance(*event->mark->stream, event->mark.get(), true);
    return 0;
}
Status cuEventDestroy_v2(Event *event) { delete event; return 0; }

Status cuMemGetInfo_v2(size_t *free, size_t *total) {
    Lock lock(one_at_a_time);
    *total = memory();
    *free = *total - (taken < *total ? taken : *total);
    return current ? 0 : INVALID_CONTEXT;
}
Status cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) { return allocate(address, bytes, stream); }
Status cuMemFreeAsync(uint64_t address, void *stream) { return give_back(address, stream); }
Status cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    Lock lock(one_at_a_time);
    Status status = allocate(address, bytes, nullptr);
    advance(*default_stream(), nullptr, true);
    return status;
}
Status cuMemFree_v2(uint64_t address) {
    Lock lock(one_at_a_time);
    finish_all();
    Status status = give_back(address, nullptr);
    advance(*default_stream(), nullptr, true);
    return status;
}
Status cuDeviceGetDefaultMemPool(void **pool, int) { *pool = (void *)8; return 0; }
Status cuMemPoolSetAttribute(void *, int attribute, void *) { return attribute == 4 ? 0 : INVALID_VALUE; }
Status cuMemPoolGetAttribute(void *, int, void *value) { memset(value, 0, 8); return 0; }
Status cuMemHostAlloc(void **place, size_t bytes, unsigned) {
    Lock lock(one_at_a_time);
    *place = malloc(bytes ? bytes : 1);
    if (!*place) return OUT_OF_MEMORY;
    memset(*place, 0xff, bytes);
    pinned[(char *)*place] = bytes;
    return 0;
}
Status cuMemFreeHost(void *place) {
    Lock lock(one_at_a_time);
    auto own = pinned.find((char *)place);
    if (own == pinned.end()) return INVALID_VALUE;
    // What is still queued finds noise.
    memset(place, 0xff, own->second);
    given_back.push_back({(char *)place, 0});
    pinned.erase(own);
    return 0;
}

Status cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { memcpy((void *)to, from, bytes); return 0; }
Status cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { memcpy(to, (void *)from, bytes); return 0; }
// What is not pinned is taken at once, and given when it is there; what is pinned is read and written when it is its turn.
Status cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    Lock lock(one_at_a_time);
    if (is_pinned(from)) {
        queue(stream, [=] { memcpy((void *)to, from, bytes); });
        return 0;
    }
    auto copy = std::make_shared<std::string>((const char *)from, bytes);
    queue(stream, [=] { memcpy((void *)to, copy->data(), bytes); });
    return 0;
}
Status cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    Lock lock(one_at_a_time);
    queue(stream, [=] { memcpy(to, (void *)from, bytes); });
    if (!is_pinned(to)) advance(stream_of(stream), nullptr, true);
    return 0;
}
Status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    Lock lock(one_at_a_time);
    queue(stream, [=] { memcpy((void *)to, (void *)from, bytes); });
    return 0;
}
Status cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream) {
    Lock lock(one_at_a_time);
    queue(stream, [=] { memset((void *)to, value, bytes); });
    return 0;
}
}
