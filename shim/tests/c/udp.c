/* udp ECHO: connected and unconnected datagrams in every way to move them. */
#include "common.h"

static void show(const char *what, long n, const char *data) {
    printf("%s %s [%.*s]\n", what, said(n), n > 0 ? (int)(n < 20 ? n : 20) : 0, data);
}

int main(int argc, char **argv) {
    (void)argc;
    int port = atoi(argv[1]);
    struct sockaddr_in to = at(port), from;
    socklen_t len = sizeof from;
    char data[70000] = {0};
    int waiting = -1;

    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    printf("no destination %s\n", said(send(fd, "x", 1, 0)));
    printf("nothing yet %s\n", said(recv(fd, data, 10, MSG_DONTWAIT)));
    printf("sendto %s\n", said(sendto(fd, "unconnected", 11, 0, (struct sockaddr *)&to, sizeof to)));
    show("peek", recvfrom(fd, data, 100, MSG_PEEK, NULL, NULL), data);
    ioctl(fd, FIONREAD, &waiting);
    printf("waiting %d\n", waiting);
    show("trunc", recvfrom(fd, data, 4, MSG_PEEK | MSG_TRUNC, NULL, NULL), data);
    show("short", recvfrom(fd, data, 4, 0, (struct sockaddr *)&from, &len), "unco");
    printf("from %d %d len %u\n", from.sin_port == htons(port), from.sin_addr.s_addr == htonl(INADDR_LOOPBACK), len);
    len = sizeof from;
    printf("name %s", said(getsockname(fd, (struct sockaddr *)&from, &len)));
    printf(" port %d\n", from.sin_port != 0);
    printf("empty %s\n", said(sendto(fd, "", 0, 0, (struct sockaddr *)&to, sizeof to)));
    show("empty", recv(fd, data, 10, 0), data);
    printf("too long %s\n", said(sendto(fd, data, 65508, 0, (struct sockaddr *)&to, sizeof to)));
    close(fd);

    fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    printf("bind %s\n", said(bind(fd, (struct sockaddr *)&any, sizeof any)));
    len = sizeof from;
    getsockname(fd, (struct sockaddr *)&from, &len);
    printf("bound port %d any %d\n", from.sin_port != 0, from.sin_addr.s_addr == 0);
    printf("connect %s\n", said(join(fd, port)));
    len = sizeof from;
    getpeername(fd, (struct sockaddr *)&from, &len);
    printf("peer %d\n", from.sin_port == htons(port));
    len = sizeof from;
    getsockname(fd, (struct sockaddr *)&from, &len);
    printf("local %d\n", from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    printf("write %s\n", said(write(fd, "written", 7)));
    struct pollfd p = {fd, POLLIN, 0};
    printf("poll %d\n", poll(&p, 1, 5000));
    show("read", read(fd, data, 100), data);
    struct iovec two[2] = {{"vec", 3}, {"tor", 3}};
    printf("writev %s\n", said(writev(fd, two, 2)));
    char a[4] = "", b[10] = "";
    struct iovec in[2] = {{a, 2}, {b, 9}};
    printf("readv %s", said(readv(fd, in, 2)));
    printf(" %s %s\n", a, b);

    struct mmsghdr many[3] = {0};
    struct iovec each[3] = {{"one", 3}, {"two!", 4}, {"three", 5}};
    for (int i = 0; i < 3; i++)
        many[i].msg_hdr = (struct msghdr){.msg_iov = &each[i], .msg_iovlen = 1};
    printf("probe %s\n", said(sendmmsg(fd, NULL, 0, 0)));
    printf("sendmmsg %s\n", said(sendmmsg(fd, many, 3, 0)));
    char room[3][3];
    for (int i = 0; i < 3; i++)
        each[i] = (struct iovec){room[i], 3};
    printf("recvmmsg %s\n", said(recvmmsg(fd, many, 3, 0, NULL)));
    for (int i = 0; i < 3; i++)
        printf("  %u %.3s trunc %d\n", many[i].msg_len, room[i], !!(many[i].msg_hdr.msg_flags & MSG_TRUNC));
    memset(data, 'z', 60000);
    printf("large %s\n", said(send(fd, data, 60000, 0)));
    printf("large %s\n", said(recv(fd, data, sizeof data, 0)));
    struct timeval t = {0, 100000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    printf("timeout %s\n", said(recv(fd, data, 10, 0)));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    printf("unconnect %s\n", said(connect(fd, &none, sizeof none)));
    printf("send %s\n", said(send(fd, "x", 1, 0)));
    return 0;
}
