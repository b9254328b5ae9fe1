/* inherit ECHO: dup, fork, exec, SCM_RIGHTS, and every descriptor closed first. */
#include "common.h"

static int pass(int fd) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char byte = 'x';
    struct iovec v = {&byte, 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } c = {0};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    printf("passed %s\n", said(sendmsg(pair[0], &m, 0)));
    m.msg_controllen = sizeof c;
    if (recvmsg(pair[1], &m, 0) != 1)
        return -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    close(pair[0]);
    close(pair[1]);
    return fd;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    int port = atoi(argv[1]);
    if (argc == 3) {
        echo("executed", atoi(argv[2]));
        return 0;
    }
    for (int i = 3; i < 1024; i++)
        close(i);
    int fd = tcp(port);
    echo("closed", fd);
    int copy = dup(fd);
    close(fd);
    echo("dup", copy);
    dup2(copy, 77);
    close(copy);
    fd = fcntl(77, F_DUPFD, 100);
    close(77);
    echo("dupfd", fd);
    pid_t pid = fork();
    if (pid == 0) {
        echo("child", fd);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    echo("parent", fd);
    int got = pass(fd);
    close(fd);
    echo("rights", got);
    /* A number that was a socket's is a pipe's now. */
    int p[2];
    char byte;
    dup2(got, 200);
    close(got);
    if (pipe(p) == 0) {
        close(p[1]);
        printf("pipe %s\n", said(read(p[0], &byte, 1)));
    }
    dup2(200, 201);
    char number[12];
    sprintf(number, "%d", 201);
    execl(argv[0], argv[0], argv[1], number, NULL);
    return 1;
}
