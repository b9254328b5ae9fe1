/* What all test programs share: every line printed must be the same natively and under pktwrap. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static inline struct sockaddr_in at(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static inline int join(int fd, int port) {
    struct sockaddr_in a = at(port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static inline int tcp(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) {
        printf("socket: %s\n", strerrorname_np(errno));
        exit(1);
    }
    if (join(fd, port) < 0) {
        printf("connect: %s\n", strerrorname_np(errno));
        exit(1);
    }
    return fd;
}

/* "result" or the name of the error. */
static inline const char *said(long result) {
    static char text[4][32];
    static int turn;
    char *out = text[turn++ % 4];
    if (result < 0)
        snprintf(out, 32, "%s", strerrorname_np(errno));
    else
        snprintf(out, 32, "%ld", result);
    return out;
}

static inline const char *soerror(int fd) {
    int value = -1;
    socklen_t len = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len) < 0)
        return strerrorname_np(errno);
    return value ? strerrorname_np(value) : "0";
}

/* Sends a word to an echo server and prints what comes back. */
static inline void echo(const char *what, int fd) {
    char back[64] = "";
    size_t got = 0, len = strlen(what);
    if (send(fd, what, len, 0) != (ssize_t)len)
        printf("%s: send %s\n", what, strerrorname_np(errno));
    while (got < len) {
        ssize_t n = recv(fd, back + got, len - got, 0);
        if (n <= 0) {
            printf("%s: recv %s\n", what, said(n));
            return;
        }
        got += n;
    }
    printf("echo %s\n", back);
}
