/* ends ECHO FAREWELL RESET: how connections end. FAREWELL says "bye", sends FIN, reads to the end; RESET reads one byte
 * and resets. */
#include "common.h"

static volatile int pipes;
static void on_pipe(int number) {
    (void)number;
    pipes++;
}

static void until_reset(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    poll(&p, 1, 5000);
}

int main(int argc, char **argv) {
    (void)argc;
    char data[100] = "";
    signal(SIGPIPE, on_pipe);
    int fd = tcp(atoi(argv[1]));
    printf("send %s\n", said(send(fd, "half", 4, 0)));
    printf("shutdown %s\n", said(shutdown(fd, SHUT_WR)));
    printf("recv %s", said(recv(fd, data, 4, MSG_WAITALL)));
    printf(" %s\n", data);
    printf("end %s\n", said(recv(fd, data, 4, 0)));
    printf("end %s\n", said(read(fd, data, 4)));
    printf("write %s", said(write(fd, "x", 1)));
    printf(" signals %d\n", pipes);
    close(fd);

    fd = tcp(atoi(argv[2]));
    struct iovec v = {data, sizeof data};
    printf("bye %s\n", said(recv(fd, data, 3, MSG_WAITALL)));
    printf("end %s\n", said(readv(fd, &v, 1)));
    printf("still %s\n", said(send(fd, "there", 5, 0)));
    printf("close %s\n", said(close(fd)));

    for (int way = 0; way < 4; way++) {
        fd = tcp(atoi(argv[3]));
        pipes = 0;
        send(fd, "x", 1, 0);
        until_reset(fd);
        printf("way %d ", way);
        if (way == 0)
            printf("recv %s", said(recv(fd, data, 10, 0)));
        if (way == 1)
            printf("read %s", said(read(fd, data, 10)));
        if (way == 2)
            printf("send %s", said(send(fd, data, 10, 0)));
        if (way == 3)
            printf("error %s", soerror(fd));
        printf(" then recv %s", said(recv(fd, data, 10, 0)));
        printf(" send %s", said(send(fd, data, 10, MSG_NOSIGNAL)));
        printf(" signals %d", pipes);
        printf(" write %s", said(write(fd, data, 10)));
        printf(" signals %d error %s\n", pipes, soerror(fd));
        close(fd);
    }
    return 0;
}
