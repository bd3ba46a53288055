/* workspace.c: scratch memory that a thread keeps between calls. */
#include <pthread.h>
#include <stdlib.h>

#include "fastdrop.h"

typedef struct {
    void *memory[FD_SLOTS];
    size_t bytes[FD_SLOTS];
} thread_buffers;

static _Thread_local thread_buffers *own;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void release(void *pointer)
{
    thread_buffers *buffers = pointer;
    for (int slot = 0; slot < FD_SLOTS; slot++) {
        free(buffers->memory[slot]);
    }
    free(buffers);
    own = NULL;
}

static void make_key(void) { pthread_key_create(&key, release); }

void *fd_workspace(int slot, size_t bytes)
{
    if (own == NULL) {
        pthread_once(&once, make_key);
        own = calloc(1, sizeof *own);
        if (own == NULL || pthread_setspecific(key, own) != 0) {
            free(own);
            own = NULL;
            return NULL;
        }
    }
    if (own->bytes[slot] < bytes) {
        free(own->memory[slot]);
        const size_t rounded = (bytes + 4095) / 4096 * 4096;
        own->memory[slot] = aligned_alloc(4096, rounded); /* panels: whole pages and lines */
        own->bytes[slot] = own->memory[slot] ? rounded : 0;
    }
    return own->memory[slot];
}
