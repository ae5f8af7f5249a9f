/* A litmus test of waiting for several logs at once (log_follow.h): two logs, each with a writer of its own, two readers
 * asleep on both, and somebody who pokes the readers. Nobody may sleep on when there is a record, or a poke to answer.
 *
 * A reader says of every sleep how long it lasted beyond the commit that should have ended it; whoever pokes waits for
 * the answer. More than LATE_NS is a missed wake-up. As in a thread that rings an event loop's bell, readers draw their
 * tickets with no lock between them and those who poke.
 *
 * BROKEN_WAKE: commits without a look at the sleepers. BROKEN_POKE: the sleeper's mark is taken away and the word stays
 * as it was. BROKEN_LOOK: asleep without another look. Each must be noticed. */
#define _GNU_SOURCE
#include "log_follow.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef COMMITS
#ifndef COMMITS
#define COMMITS 25000 /* of each writer */
#endif
#endif
#ifndef POKES
#define POKES 10000
#endif
#define LOGS 2
#define READERS 2
#define LATE_NS INT64_C(1000000000)
#define GIVE_UP_NS INT64_C(4000000000)

static log_control controls[LOGS];
static log_wait wait_pages[LOGS];
static uint64_t records[LOGS][COMMITS + POKES]; /* each holds its place, mixed */
static int64_t committed_ns[LOGS][COMMITS + POKES];
static uint32_t told, over; /* atomic */

typedef struct {
    log_wait own;
    uint32_t asked, answered; /* atomic */
    log_follower followers[LOGS];
    uint64_t torn, late, sleeps;
    int64_t worst_ns;
} reader;

static reader readers[READERS];

static uint64_t mixed(uint64_t place) { return (place + 1) * UINT64_C(0x9E3779B97F4A7C15); }

static void commit(int log, uint64_t count)
{
#if defined(BROKEN_WAKE)
    store_release_u64(&controls[log].commit, count);
#else
    log_commit(&controls[log], &wait_pages[log], count);
#endif
}

static void poke(log_wait *own)
{
#if defined(BROKEN_POKE)
    fetch_add_seq_cst_u32(&own->wake_seq, 1);
    fence_seq_cst();
    if (load_seq_cst_u32(&own->sleepers)) {
        sched_yield(); /* what a scheduler may do at any time */
        store_seq_cst_u32(&own->sleepers, 0);
        futex_wake_all(&own->wake_seq);
    }
#else
    follow_poke(own);
#endif
}

static int wait_for(reader *me, uint32_t ticket)
{
    log_follower *all[LOGS] = {&me->followers[0], &me->followers[1]};
#if defined(BROKEN_LOOK)
    futex_word words[LOGS + 1];
    if (follow_look(all, LOGS)) return FOLLOW_RECORDS;
    sched_yield();
    for (int log = 0; log < LOGS; log++) {
        store_seq_cst_u32(&wait_pages[log].sleepers, 1);
        words[log] = futex_word_of(&wait_pages[log].wake_seq, load_seq_cst_u32(&wait_pages[log].wake_seq));
    }
    store_seq_cst_u32(&me->own.sleepers, 1);
    words[LOGS] = futex_word_of(&me->own.wake_seq, ticket);
    futex_wait_words(words, LOGS + 1, GIVE_UP_NS);
    return follow_look(all, LOGS);
#else
    return follow_wait(all, LOGS, &me->own, ticket, GIVE_UP_NS, IDLE_BLOCK);
#endif
}

static void *read_all(void *argument)
{
    reader *me = argument;
    uint64_t seen[LOGS] = {0};
    for (;;) {
        const uint32_t ticket = follow_ticket(&me->own);
        store_seq_cst_u32(&me->answered, load_seq_cst_u32(&me->asked));
        if (load_seq_cst_u32(&over)) return NULL;
        const int64_t began_ns = monotonic_ns();
        wait_for(me, ticket);
        const int64_t ended_ns = monotonic_ns();
        me->sleeps++;
        for (int log = 0; log < LOGS; log++) {
            const uint64_t count = load_acquire_u64(&controls[log].commit);
            if (count > seen[log]) {
                int64_t from_ns = committed_ns[log][seen[log]];
                if (from_ns < began_ns) from_ns = began_ns;
                if (ended_ns - from_ns > me->worst_ns) me->worst_ns = ended_ns - from_ns;
                me->late += ended_ns - from_ns > LATE_NS;
            }
            for (; seen[log] < count; seen[log]++) me->torn += records[log][seen[log]] != mixed(seen[log]);
            store_release_u64(&me->followers[log].cursor, seen[log]);
        }
    }
}

static void *write_all(void *argument)
{
    const int log = (int)(intptr_t)argument;
    unsigned random = 17 + (unsigned)log;
    for (uint64_t done = 0; done < COMMITS;) {
        records[log][done] = mixed(done);
        committed_ns[log][done] = monotonic_ns();
        commit(log, ++done);
        random = random * 1103515245u + 12345u;
        if ((random >> 20) % 512 == 0) sleep_ns(20000); /* long enough for the readers to fall asleep */
        else if ((random >> 16) % 32 == 0) sched_yield();
    }
    return NULL;
}

/* Commits one record each time that it is told to, as the poke goes out. */
static void *commit_when_told(void *unused)
{
    (void)unused;
    for (uint64_t done = COMMITS; done < COMMITS + POKES;) {
        while (load_seq_cst_u32(&told) <= done - COMMITS) {
            if (load_seq_cst_u32(&over)) return NULL;
            cpu_pause();
        }
        records[0][done] = mixed(done);
        committed_ns[0][done] = monotonic_ns();
        commit(0, ++done);
    }
    return NULL;
}

static int in_time(reader *of, uint32_t answer, uint64_t cursor)
{
    const int64_t deadline_ns = monotonic_ns() + LATE_NS;
    for (int looks = 0; load_seq_cst_u32(&of->answered) != answer || load_acquire_u64(&of->followers[0].cursor) < cursor; looks++) {
        if (looks > 1000) sched_yield();
        if (monotonic_ns() > deadline_ns) return 0;
    }
    return 1;
}

/* One commit and one poke at the same moment, then one poke with nothing else to wake a reader: each must be seen. */
static int poke_all(void)
{
    for (uint32_t round = 1; round <= POKES; round++) {
        store_seq_cst_u32(&told, round);
        for (uint32_t again = 0; again < 2; again++)
            for (int i = 0; i < READERS; i++) {
                store_seq_cst_u32(&readers[i].asked, 2 * round + again);
                poke(&readers[i].own);
                if (in_time(&readers[i], 2 * round + again, COMMITS + round)) continue;
                printf("round %u: reader %d sleeps on\n", (unsigned)round, i);
                return 0;
            }
    }
    return 1;
}

int main(void)
{
    pthread_t writers[LOGS], sleepers[READERS], committer;
    uint64_t failures = 0;
    for (int i = 0; i < READERS; i++)
        for (int log = 0; log < LOGS; log++)
            readers[i].followers[log] = (log_follower){.control = &controls[log], .wait = &wait_pages[log], .open = 1};
    for (int i = 0; i < READERS; i++) pthread_create(&sleepers[i], NULL, read_all, &readers[i]);
    for (int log = 0; log < LOGS; log++) pthread_create(&writers[log], NULL, write_all, (void *)(intptr_t)log);
    for (int log = 0; log < LOGS; log++) pthread_join(writers[log], NULL);
    for (int i = 0; i < READERS; i++) failures += !in_time(&readers[i], 0, COMMITS);
    pthread_create(&committer, NULL, commit_when_told, NULL);
    failures += failures || !poke_all();
    store_seq_cst_u32(&over, 1);
    pthread_join(committer, NULL);
    for (int i = 0; i < READERS; i++) {
        follow_poke(&readers[i].own);
        pthread_join(sleepers[i], NULL);
        failures += readers[i].torn + readers[i].late;
        printf("reader %d: %llu waits, at most %lld us beyond a commit\n", i, (unsigned long long)readers[i].sleeps,
               (long long)(readers[i].worst_ns / 1000));
    }
    printf("%d commits, %d pokes, %llu torn, late or unanswered\n", LOGS * COMMITS + POKES, 2 * READERS * POKES,
           (unsigned long long)failures);
    return failures != 0;
}
