/* connect ECHO REFUSED: blocking and non-blocking connects, each way to wait for them. */
#include "common.h"

static void names(int fd, int port) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    int r = getsockname(fd, (struct sockaddr *)&a, &len);
    printf("  sockname %s family %d loopback %d port %d len %u\n", said(r), a.sin_family,
           a.sin_addr.s_addr == htonl(INADDR_LOOPBACK), a.sin_port != 0, len);
    len = sizeof a;
    r = getpeername(fd, (struct sockaddr *)&a, &len);
    printf("  peername %s", said(r));
    if (r == 0)
        printf(" right %d", a.sin_port == htons(port) && a.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    printf("\n");
}

static int wait_with(int way, int fd) {
    if (way == 1) {
        struct pollfd p = {fd, POLLOUT, 0};
        int n = poll(&p, 1, 5000);
        /* A failing unix socket wakes its poller a moment before it frees the buffers that make it writable. */
        for (int i = 0; i < 100 && n == 1 && p.revents && !(p.revents & POLLOUT); i++) {
            usleep(1000);
            n = poll(&p, 1, 5000);
        }
        printf("  poll %d out %d err %d\n", n, !!(p.revents & POLLOUT), !!(p.revents & POLLERR));
        return n;
    }
    if (way == 2) {
        fd_set w;
        struct timeval t = {5, 0};
        FD_ZERO(&w);
        FD_SET(fd, &w);
        int n = select(fd + 1, NULL, &w, NULL, &t);
        printf("  select %d out %d\n", n, FD_ISSET(fd, &w) != 0);
        return n;
    }
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLOUT | (way == 4 ? EPOLLET : 0)};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    int n = epoll_wait(ep, &e, 1, 5000);
    for (int i = 0; i < 100 && way == 3 && n == 1 && !(e.events & EPOLLOUT); i++) {
        usleep(1000);
        n = epoll_wait(ep, &e, 1, 5000);
    }
    printf("  epoll %d out %d err %d\n", n, !!(e.events & EPOLLOUT), !!(e.events & EPOLLERR));
    close(ep);
    return n;
}

int main(int argc, char **argv) {
    (void)argc;
    for (int way = 0; way < 5; way++)
        for (int refused = 0; refused < 2; refused++) {
            int port = atoi(argv[1 + refused]);
            int fd = socket(AF_INET, SOCK_STREAM | (way ? SOCK_NONBLOCK : 0) | SOCK_CLOEXEC, 0);
            printf("way %d %s\n  connect %s\n", way, refused ? "refused" : "open", said(join(fd, port)));
            if (way)
                wait_with(way, fd);
            if (way != 2)
                printf("  error %s then %s\n", soerror(fd), soerror(fd));
            if (!refused)
                names(fd, port);
            else
                printf("  peername %s\n", said(getpeername(fd, (struct sockaddr *)&(struct sockaddr_in){0},
                                                           &(socklen_t){sizeof(struct sockaddr_in)})));
            printf("  again %s\n", said(join(fd, port)));
            if (!refused)
                printf("  and again %s\n", said(join(fd, port)));
            fcntl(fd, F_SETFL, 0);
            if (!refused)
                echo("hi", fd);
            close(fd);
        }
    /* The same descriptor connects after a failure. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    printf("first %s\n", said(join(fd, atoi(argv[2]))));
    printf("second %s\n", said(join(fd, atoi(argv[1]))));
    echo("again", fd);
    close(fd);
    /* A mapped address on an IPv6 socket. */
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &six.sin6_addr);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    printf("mapped %s\n", said(connect(fd, (struct sockaddr *)&six, sizeof six)));
    socklen_t len = sizeof six;
    char text[64];
    getsockname(fd, (struct sockaddr *)&six, &len);
    printf("from %s\n", inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text));
    len = sizeof six;
    getpeername(fd, (struct sockaddr *)&six, &len);
    printf("to %s\n", inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text));
    echo("mapped", fd);
    return 0;
}
