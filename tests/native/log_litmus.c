/* A litmus test of the log's memory ordering: one writer, two readers that sleep on the wait page, records checked.
 *
 * Under ThreadSanitizer a record that is read without a happens-before edge to its write is a reported race, on any
 * processor: x86's own ordering hides nothing from it. Run plainly it looks for torn records and lost wake-ups: a
 * reader that has slept for WAIT_NS though a commit came is counted. BROKEN_COMMIT takes the release out of the commit;
 * BROKEN_WAKE the look at the sleepers: each must be noticed. */
#define _GNU_SOURCE
#include "log_layout.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define RECORD_BYTES 64
#define RECORDS 200000
#define READERS 2
#define WAIT_NS INT64_C(2000000000)

static log_control control;
static log_wait wait_page;
static char segment[(size_t)RECORDS * RECORD_BYTES] __attribute__((aligned(64)));

static void commit(uint64_t count)
{
#if defined(BROKEN_COMMIT)
    atomic_store_explicit((_Atomic uint64_t *)&control.commit, count, memory_order_relaxed);
    atomic_fetch_add_explicit((_Atomic uint32_t *)&wait_page.wake_seq, 1, memory_order_relaxed);
    futex_wake_all(&wait_page.wake_seq);
#elif defined(BROKEN_WAKE)
    store_release_u64(&control.commit, count);
#else
    log_commit(&control, &wait_page, count);
#endif
}

static void *write_all(void *unused)
{
    static uint64_t numbers[8 * 40];
    uint64_t done = 0;
    unsigned random = 1;
    (void)unused;
    while (done < RECORDS) {
        random = random * 1103515245u + 12345u;
        uint64_t batch = 1 + (random >> 16) % 40;
        if (batch > RECORDS - done) batch = RECORDS - done;
        for (uint64_t i = 0; i < batch; i++)
            for (int word = 0; word < 8; word++) numbers[8 * i + word] = (done + i) * 8 + word;
        log_copy_stamped(segment + done * RECORD_BYTES, (char *)numbers, RECORD_BYTES, batch, (int64_t)(done + batch));
        done += batch;
        commit(done);
        if ((random >> 20) % 64 == 0) sleep_ns(20000); /* long enough for the readers to fall asleep */
    }
    return NULL;
}

static void *read_all(void *result)
{
    uint64_t seen = 0, wrong = 0, late = 0;
    while (seen < RECORDS) {
        const int64_t began = monotonic_ns();
        const uint64_t count = log_wait_for_commit(&control, &wait_page, seen, WAIT_NS);
        late += monotonic_ns() - began >= WAIT_NS;
        for (; seen < count; seen++) {
            uint64_t words[8];
            memcpy(words, segment + seen * RECORD_BYTES, RECORD_BYTES);
            for (int word = 0; word < 8; word++) wrong += word != 2 && words[word] != seen * 8 + word;
            wrong += words[2] <= seen || words[2] > count;
        }
        if (late) break;
    }
    *(uint64_t *)result = wrong + late;
    return NULL;
}

int main(void)
{
    pthread_t writer, readers[READERS];
    uint64_t failed[READERS] = {0}, all = 0;
    for (int i = 0; i < READERS; i++) pthread_create(&readers[i], NULL, read_all, &failed[i]);
    pthread_create(&writer, NULL, write_all, NULL);
    pthread_join(writer, NULL);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
        all += failed[i];
    }
    printf("%d records, %llu torn or late\n", RECORDS, (unsigned long long)all);
    return all != 0;
}
