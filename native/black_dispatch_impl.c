/* Which build of the block kernel runs: the best one whose instructions this processor and its system have. */
#include "black_kernel.h"

#include <string.h>

#if defined(BLACK_HAVE_V4)
extern const black_kernel black_kernel_v4;
#endif
#if defined(BLACK_HAVE_V3)
extern const black_kernel black_kernel_v3;
#endif
extern const black_kernel black_kernel_baseline;

const black_kernel *black_active = &black_kernel_baseline;

static const black_kernel *const kernels[] = {
#if defined(BLACK_HAVE_V4)
    &black_kernel_v4,
#endif
#if defined(BLACK_HAVE_V3)
    &black_kernel_v3,
#endif
    &black_kernel_baseline,
};

#define KERNELS ((int)(sizeof kernels / sizeof kernels[0]))

/* The features that the objects are compiled for (setup.py), each asked for by name. */
static int runs(const black_kernel *kernel)
{
#if defined(BLACK_HAVE_V3) || defined(BLACK_HAVE_V4)
    __builtin_cpu_init();
    const int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
                   && __builtin_cpu_supports("bmi2");
    if (strcmp(kernel->name, "v3") == 0)
        return v3;
    if (strcmp(kernel->name, "v4") == 0)
        return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
               && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
               && __builtin_cpu_supports("avx512vl");
#endif
    return kernel == &black_kernel_baseline;
}

int black_select(const char *name)
{
    for (int i = 0; i < KERNELS; i++)
        if ((name == NULL || strcmp(name, kernels[i]->name) == 0) && runs(kernels[i])) {
            black_active = kernels[i];
            return 0;
        }
    return -1;
}

const char *black_target_name(int i, int *can)
{
    if (i < 0 || i >= KERNELS)
        return NULL;
    *can = runs(kernels[i]);
    return kernels[i]->name;
}
