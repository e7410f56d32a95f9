/*
 * Runs a program and says on its standard output how long it took from spawn to exit, in nanoseconds, its wait status, and
 * the most memory it and what it waited for had at once, in KiB. Linked statically and started with vfork, so that neither
 * its own loading nor its own memory is in the figures.
 *
 *   launch [-l] OUTPUT PROGRAM [ARGS...]
 *
 * OUTPUT is the file that takes what the program prints. With -l descriptor 7 is a pipe, and 8 reads zeros: what comes out of
 * the pipe is printed in front, each line with the nanoseconds since spawn. It is read with a priority that stops whatever
 * else runs, so that a line's time is right on a single CPU.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void copy_lines(int from, long long began)
{
    FILE *lines = fdopen(from, "r");
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, lines) > 0)
        printf("%lld %s", now() - began, line);
}

int main(int count, char **words)
{
    int with_lines = count > 1 && !strcmp(words[1], "-l"), pipe_ends[2] = {-1, -1};
    char **program = words + 2 + with_lines;
    if (count < 3 + with_lines || (with_lines && pipe2(pipe_ends, O_CLOEXEC)))
        return 2;
    int output = open(program[-1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC), zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    struct sched_param first = {.sched_priority = 1};
    if (with_lines)
        sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first);
    struct rusage used;
    int status;
    long long began = now();
    pid_t pid = vfork();
    if (pid < 0)
        return 2;
    if (!pid) {
        dup2(nothing, 0);
        dup2(output, 1);
        dup2(output, 2);
        if (with_lines) {
            dup2(pipe_ends[1], 7);
            dup2(zeros, 8);
        }
        execvp(program[0], program);
        _exit(127);
    }
    if (with_lines) {
        close(pipe_ends[1]);
        copy_lines(pipe_ends[0], began);
    }
    wait4(pid, &status, 0, &used);
    printf("%lld %d %ld\n", now() - began, status, used.ru_maxrss);
    return 0;
}
