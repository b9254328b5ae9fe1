/* drain PORT: reads to the end of the stream; status 0 only at a genuine end. */
#include "common.h"

int main(int argc, char **argv) {
    (void)argc;
    char data[4096];
    int fd = tcp(atoi(argv[1])), told = 0;
    for (;;) {
        ssize_t n = recv(fd, data, sizeof data, 0);
        if (n <= 0) {
            printf("ended %s\n", said(n));
            return n < 0;
        }
        if (!told++) {
            printf("reading\n");
            fflush(stdout);
        }
    }
}
