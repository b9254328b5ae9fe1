/* states ECHO: what calls say on sockets that are not connected, or are of another kind. */
#include "common.h"

int main(int argc, char **argv) {
    (void)argc;
    int port = atoi(argv[1]);
    char byte = 0;
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    signal(SIGPIPE, SIG_IGN);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    printf("recv %s\n", said(recv(fd, &byte, 1, 0)));
    printf("read %s\n", said(read(fd, &byte, 1)));
    printf("send %s\n", said(send(fd, &byte, 1, 0)));
    printf("write %s\n", said(write(fd, &byte, 1)));
    printf("shutdown %s\n", said(shutdown(fd, SHUT_WR)));
    printf("getpeername %s\n", said(getpeername(fd, (struct sockaddr *)&a, &len)));
    printf("getsockname %s", said(getsockname(fd, (struct sockaddr *)&a, &len)));
    printf(" %d %d %d %u\n", a.sin_family, a.sin_port, a.sin_addr.s_addr, len);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
    printf("family %s\n", said(connect(fd, (struct sockaddr *)&six, sizeof six)));
    printf("short %s\n", said(connect(fd, (struct sockaddr *)&a, 7)));
    printf("connect %s\n", said(join(fd, port)));
    printf("connect %s\n", said(join(fd, port)));
    printf("bind %s\n", said(bind(fd, (struct sockaddr *)&a, sizeof a)));
    printf("dontwait %s\n", said(recv(fd, &byte, 1, MSG_DONTWAIT)));
    printf("errqueue %s\n", said(recv(fd, &byte, 1, MSG_ERRQUEUE)));
    printf("flags %d %d\n", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    printf("flags %d %d\n", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    printf("flags %d %d\n", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
    printf("accept %s\n", said(accept(fd, NULL, NULL)));
    printf("bad %s\n", said(socket(AF_INET, 77, 0)));
    printf("closed %s\n", said(connect(900, (struct sockaddr *)&a, sizeof a)));
    printf("not a socket %s\n", said(connect(1, (struct sockaddr *)&a, sizeof a)));
    /* Others' sockets are as ever. */
    int pair[2];
    printf("pair %s\n", said(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)));
    printf("write %s\n", said(write(pair[0], "x", 1)));
    printf("read %s\n", said(read(pair[1], &byte, 1)));
    close(pair[0]);
    printf("eof %s\n", said(read(pair[1], &byte, 1)));
    return 0;
}
