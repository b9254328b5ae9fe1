/* cancel ECHO: a thread that waits in a hook can be cancelled. */
#include "common.h"

static int fd;
static void *wait_for_data(void *kind) {
    char byte;
    if (kind)
        recv(fd, &byte, 1, 0);
    else
        while (read(fd, &byte, 1) > 0)
            ;
    return NULL;
}

int main(int argc, char **argv) {
    (void)argc;
    for (int kind = 0; kind < 3; kind++) {
        fd = kind == 2 ? socket(AF_INET, SOCK_DGRAM, 0) : tcp(atoi(argv[1]));
        pthread_t thread;
        void *result = NULL;
        pthread_create(&thread, NULL, wait_for_data, kind ? &fd : NULL);
        usleep(50000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        printf("cancelled %d\n", result == PTHREAD_CANCELED);
        close(fd);
    }
    return 0;
}
