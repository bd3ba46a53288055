/* crush.c: a battery of TestU01 on the 32-bit words of standard input.
 *
 *     crush smallcrush
 *     crush rabbit BITS          crush alphabit BITS          crush blockalphabit BITS
 *
 * Prints one line for each p-value, "name<tab>p", and as the last line "words<tab>number read". The
 * library's own report goes to standard error. Link with -ltestu01 -ltestu01probdist -ltestu01mylib.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <TestU01.h>

#define BUFFER 16384

static unsigned buffer[BUFFER];
static size_t held, used;
static unsigned long long words;

static unsigned next_word(void)
{
    if (used == held) {
        held = fread(buffer, sizeof buffer[0], BUFFER, stdin);
        used = 0;
        if (held == 0) {
            fprintf(stderr, "crush: the input ended after %llu words\n", words);
            exit(2);
        }
    }
    words++;
    return buffer[used++];
}

static int run(unif01_Gen *generator, const char *battery, double bits)
{
    if (strcmp(battery, "smallcrush") == 0) {
        bbattery_SmallCrush(generator);
    } else if (bits > 0 && strcmp(battery, "rabbit") == 0) {
        bbattery_Rabbit(generator, bits);
    } else if (bits > 0 && strcmp(battery, "alphabit") == 0) {
        bbattery_Alphabit(generator, bits, 0, 32);
    } else if (bits > 0 && strcmp(battery, "blockalphabit") == 0) {
        bbattery_BlockAlphabit(generator, bits, 0, 32);
    } else {
        return -1;
    }
    return 0;
}

int main(int count, char **arguments)
{
    /* The library prints to standard output, which is for our lines only. */
    fflush(stdout);
    FILE *lines = fdopen(dup(STDOUT_FILENO), "w");
    if (lines == NULL || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        return 2;
    }
    swrite_Basic = FALSE;
    unif01_Gen *generator = unif01_CreateExternGenBits("standard input", next_word);
    const double bits = count > 2 ? atof(arguments[2]) : 0;
    if (count < 2 || run(generator, arguments[1], bits) != 0) {
        fprintf(stderr, "usage: crush smallcrush | crush (rabbit|alphabit|blockalphabit) BITS\n");
        return 2;
    }
    for (int i = 0; i < bbattery_NTests; i++) {
        fprintf(lines, "%s\t%.17g\n", bbattery_TestNames[i], bbattery_pVal[i]);
    }
    fprintf(lines, "words\t%llu\n", words);
    fclose(lines);
    unif01_DeleteExternGenBits(generator);
    return 0;
}
