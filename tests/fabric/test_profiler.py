"""What a sample counts as, by its stack, and to whom it belongs."""

from __future__ import annotations

import pytest

from fabric.bench.profiler import SAMPLES_A_SECOND, Profile, add, doing

KERNEL, ZMQ, LIBC = "[kernel.kallsyms]", "/site-packages/pyzmq.libs/libzmq-2f02.so.5", "/usr/lib/libc.so.6"
WIRE = "/project/native/wire.cpython-311-x86_64-linux-gnu.so"

SCRIPT = f"""\
python 10/10
\tffff1 finish_task_switch+0x1 ({KERNEL})
\tffff2 futex_wait ({KERNEL})
\tffff3 __x64_sys_futex ({KERNEL})
\t7f01 wire_deliver ({WIRE})

ZMQbg/IO/0 10/12
\t7f02 [unknown] ({ZMQ})
\t7f03 start_thread ({LIBC})

ZMQbg/IO/0 10/12
\t7f04 __memmove_avx512_unaligned_erms ({LIBC})

python 99/99
\t7f05 main (/usr/bin/other)

"""


def test_samples_are_counted_by_thread_of_the_processes_asked_for() -> None:
    profile = Profile()
    add(profile, SCRIPT, {10: "reader"})
    assert profile.threads == [("reader", "ZMQbg/IO/0"), ("reader", "main")]
    assert dict(profile.doing["reader", "main"]) == {"kernel: futex": 1}
    assert profile.seconds(("reader", "ZMQbg/IO/0"), "libzmq") == 1 / SAMPLES_A_SECOND
    assert profile.symbols["reader", "main"].most_common() == [("finish_task_switch ([kernel.kallsyms])", 1)]
    profile.merge(profile)
    assert profile.doing["reader", "ZMQbg/IO/0"].total() == 4


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([("clear_page_erms", KERNEL), ("asm_exc_page_fault", KERNEL), ("flood", WIRE)], "kernel: page fault"),
        ([("__schedule", KERNEL), ("irqentry_exit", KERNEL)], "kernel: interrupts, switches"),
        ([("do_poll", KERNEL), ("__arm64_sys_ppoll", KERNEL)], "kernel: ppoll"),
        ([("_int_malloc", LIBC)], "malloc and free"),
        ([("__memmove_evex", LIBC)], "C library"),
        ([("clock_gettime", "[vdso]")], "clock"),
        ([("wire_deliver", WIRE)], "fabric, native"),
        ([("PyObject_Vectorcall", "/usr/lib/libpython3.11.so.1.0")], "Python"),
        ([("_PyEval_EvalFrameDefault", "/usr/bin/python3.11")], "Python"),
        ([("f", "/x/_multiarray_umath.cpython-311-x86_64-linux-gnu.so")], "numpy"),
        ([("loop", "/x/uvloop/loop.cpython-311-x86_64-linux-gnu.so")], "loop"),
    ],
)
def test_what_a_stack_is_doing(frames: list[tuple[str, str]], what: str) -> None:
    assert doing(frames) == what
