/*
 * Unpauses a domain and prints the nanoseconds until each TEXT has come out of it on Xen's console, in that order. The ring is
 * read every millisecond.
 *
 *   unpause DOMID TEXT...
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xenctrl.h>

#define PATIENCE 60000000000LL
#define PART 8192u

static char said[1 << 22];
static size_t length;

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Adds what is new in the ring. A little at a time: libxenctrl takes a buffer of that size for each call. */
static void listen_to(xc_interface *xch, uint32_t *index)
{
    unsigned int more;
    do {
        more = sizeof said - 1 - length < PART ? sizeof said - 1 - length : PART;
        if (xc_readconsolering(xch, said + length, &more, 0, 1, index))
            break;
        length += more;
    } while (more == PART);
    said[length] = '\0';
}

int main(int count, char **words)
{
    xc_interface *xch = xc_interface_open(NULL, NULL, 0);
    if (count < 3 || !xch)
        return 2;
    uint32_t index = 0;
    char prefix[16];
    snprintf(prefix, sizeof prefix, "(d%s) ", words[1]);
    listen_to(xch, &index);
    length = 0; /* what was there before does not count */
    if (xc_domain_unpause(xch, atoi(words[1])))
        return 1;
    long long began = now();
    for (int next = 2; next < count;) {
        struct timespec rest = {.tv_nsec = 1000000};
        nanosleep(&rest, NULL);
        listen_to(xch, &index);
        for (char *line = said; next < count && (line = strstr(line, prefix)); line++) {
            char *end = strchr(line, '\n'), *text = strstr(line, words[next]);
            if (end && text && text < end) {
                printf("%lld\n", now() - began);
                next++;
            }
        }
        if (now() - began > PATIENCE)
            return 1;
    }
    return 0;
}
