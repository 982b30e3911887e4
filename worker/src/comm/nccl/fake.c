/* A driver and an NCCL that work within one process: memory is the host's, and messages wait in a table until the other
 * rank, a thread, takes them. FAULT chooses what goes wrong. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NONE 0
#define NEVER_JOINS 1
#define BREAKS_LATER 2
#define REFUSES 3
#ifndef FAULT
#define FAULT NONE
#endif

/* ---- cuda.h ---- */
int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "Fake GPU", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 9 : 0;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)80 << 30; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = (void *)1; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = (size_t)70 << 30; *total = (size_t)80 << 30; return 0; }
static __thread void *current;
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)(uintptr_t)(flags + 1); return 0; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (!current || bytes == 0) return 201;
    *address = (uint64_t)(uintptr_t)malloc(bytes);
    return 0;
}
int cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { memcpy((void *)(uintptr_t)to, from, bytes); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { memcpy(to, (void *)(uintptr_t)from, bytes); return 0; }
int cuEventCreate(void **event, unsigned flags) { if (flags != 2) return 1; *event = calloc(1, sizeof(int)); return 0; }
int cuEventRecord(void *event, void *stream) { (void)stream; *(int *)event = 1; return 0; }
/* Not ready at first, so that waiting is seen to work. */
int cuEventQuery(void *event) {
    int *looks = event;
    if (FAULT == BREAKS_LATER) return 600;
    return *looks == 0 ? 1 : (*looks)++ < 3 ? 600 : 0;
}
int cuEventDestroy_v2(void *event) { free(event); return 0; }

/* ---- nccl.h ---- */
struct id { char bytes[128]; };
struct config { size_t size; unsigned magic, version; int blocking; };
struct comm { int rank, size, polls, ready, aborted; };
struct message { struct message *next; int from, to; size_t bytes; char data[]; };
static struct message *first;
static int joined;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

int ncclGetVersion(int *version) { *version = 22703; return 0; }
const char *ncclGetErrorString(int status) { return status == 5 ? "invalid usage" : status == 6 ? "remote process exited" : "unknown"; }
int ncclGetUniqueId(struct id *id) {
    for (int i = 0; i < 128; i++) id->bytes[i] = (char)(i * 7);
    return 0;
}
int ncclCommInitRankConfig(struct comm **comm, int size, struct id id, int rank, struct config *config) {
    /* Every rank must be given the first one's id, by value, and a config of version 2.14. */
    for (int i = 0; i < 128; i++) if (id.bytes[i] != (char)(i * 7)) return 4;
    if (config->size != 24 || config->magic != 0xcafebeef || config->version != 21400 || config->blocking != 0) return 5;
    if (FAULT == REFUSES) return 5;
    *comm = calloc(1, sizeof **comm);
    (*comm)->rank = rank;
    (*comm)->size = size;
    pthread_mutex_lock(&lock);
    joined++;
    pthread_mutex_unlock(&lock);
    return 7;
}
int ncclCommGetAsyncError(struct comm *comm, int *status) {
    pthread_mutex_lock(&lock);
    int all = joined >= comm->size;
    pthread_mutex_unlock(&lock);
    comm->polls++;
    /* It breaks some looks after it was ready, however long the other rank took to join. */
    if (FAULT == NEVER_JOINS || !all || comm->polls < 3) *status = 7;
    else *status = FAULT == BREAKS_LATER && ++comm->ready > 20 ? 6 : 0;
    return 0;
}
int ncclSend(const void *from, size_t bytes, int type, int peer, struct comm *comm, void *stream) {
    if (type != 1 || stream != (void *)2) return 4;
    struct message *message = malloc(sizeof *message + bytes), **last = &first;
    *message = (struct message){.from = comm->rank, .to = peer, .bytes = bytes};
    memcpy(message->data, from, bytes);
    pthread_mutex_lock(&lock);
    while (*last) last = &(*last)->next;
    *last = message;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 7;
}
int ncclRecv(void *to, size_t bytes, int type, int peer, struct comm *comm, void *stream) {
    if (type != 1 || stream != (void *)2) return 4;
    pthread_mutex_lock(&lock);
    for (;;) {
        for (struct message **at = &first; *at; at = &(*at)->next) {
            struct message *found = *at;
            if (found->from != peer || found->to != comm->rank) continue;
            int same = found->bytes == bytes;
            memcpy(to, found->data, same ? bytes : 0);
            *at = found->next;
            free(found);
            pthread_mutex_unlock(&lock);
            return same ? 0 : 4;
        }
        pthread_cond_wait(&changed, &lock);
    }
}
int ncclCommFinalize(struct comm *comm) { comm->polls = 0; return 7; }
int ncclCommDestroy(struct comm *comm) { free(comm); return 0; }
int ncclCommAbort(struct comm *comm) { comm->aborted = 1; return 0; }
