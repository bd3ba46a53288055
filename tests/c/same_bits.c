/* same_bits.c: the kernels without Python, on every instruction set that this machine has.
 *
 *     same_bits golden_masks.txt [largest]
 *     same_bits golden_masks.txt threads
 *     same_bits levels
 *
 * tests/c/run builds it, here and for other processors. Masks of more than `largest` elements are
 * left out (for valgrind, where they take long). `threads`: from several threads at the same time.
 * `levels` prints the instruction sets that the dispatcher finds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels.h"

static const int thread_counts[] = {1, 2, 5};

static void print_levels(void)
{
    for (int level = 0; level < fd_level_count(); level++) {
        if (fd_level_available(level)) {
            printf("%s%s", level ? " " : "", fd_level_name(level));
        }
    }
    putchar('\n');
}

int main(int count, char **arguments)
{
    if (count < 2) {
        fprintf(stderr, "usage: same_bits golden_masks.txt [largest|threads] | levels\n");
        return 2;
    }
    if (strcmp(arguments[1], "levels") == 0) {
        print_levels();
        return 0;
    }
    if (count > 2 && strcmp(arguments[2], "threads") == 0) {
        check_many_threads(arguments[1]);
        return 0;
    }
    const int64_t largest = count > 2 ? atoll(arguments[2]) : INT64_MAX;
    for (int level = 0; level < fd_level_count(); level++) {
        if (fd_select_level(level) != 0) {
            printf("%s: not on this machine\n", fd_level_name(level));
            continue;
        }
        int masks = 0, values = 0;
        for (size_t i = 0; i < sizeof thread_counts / sizeof thread_counts[0]; i++) {
            fd_set_num_threads(thread_counts[i]);
            masks += check_golden_masks(arguments[1], largest);
            values += check_exact_values() + check_noise();
        }
        if (masks == 0 || values == 0) {
            fail("nothing was checked");
        }
        printf("%s: %d masks and %d other results as they should be\n", fd_level_name(level), masks,
               values);
    }
    return 0;
}
