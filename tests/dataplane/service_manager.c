/*
 * The part of systemd that the file-descriptor store is: runs a program, keeps the descriptors that
 * it sends with FDSTORE=1, and hands them over when it starts the program again, which SIGHUP makes
 * it do. SIGTERM ends both. service_manager SOCKET PROGRAM ARG...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX 16
#define FIRST 3
/* Out of the way of the places that they are handed over in. */
#define KEPT 100

static struct { int fd; char name[128]; } store[MAX];
static int stored;

static void drop(const char *name) {
  for (int i = 0; i < stored;) {
    if (strcmp(store[i].name, name) == 0) {
      close(store[i].fd);
      store[i] = store[--stored];
    } else i++;
  }
}

static void receive(int sock) {
  char text[4096], control[CMSG_SPACE(sizeof(int) * MAX)];
  struct iovec iov = { text, sizeof text - 1 };
  struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1,
    .msg_control = control, .msg_controllen = sizeof control };
  ssize_t length = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
  if (length < 0) return;
  text[length] = 0;
  char name[128] = "stored";
  char *at = strstr(text, "FDNAME=");
  if (at) sscanf(at + 7, "%127[^\n]", name);
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  if (c && c->cmsg_type == SCM_RIGHTS) {
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    if (strstr(text, "FDSTORE=1") && stored < MAX) {
      store[stored].fd = fcntl(fd, F_DUPFD_CLOEXEC, KEPT);
      strcpy(store[stored++].name, name);
    }
    close(fd);
  } else if (strstr(text, "FDSTOREREMOVE=1")) drop(name);
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) printf("notify %s\n", line);
  fflush(stdout);
}

static pid_t start(char **argv, const char *path) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  char names[MAX * 129] = "", number[32];
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (int i = 0; i < stored; i++) {
    dup2(store[i].fd, FIRST + i);
    if (i > 0) strcat(names, ":");
    strcat(names, store[i].name);
  }
  setenv("NOTIFY_SOCKET", path, 1);
  if (stored > 0) {
    snprintf(number, sizeof number, "%d", stored);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    snprintf(number, sizeof number, "%d", getpid());
    setenv("LISTEN_PID", number, 1);
  }
  execvp(argv[0], argv);
  perror(argv[0]);
  _exit(127);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (bind(sock, (struct sockaddr *)&address, sizeof address) < 0) { perror("bind"); return 1; }
  /* Places that descriptors are handed over in must not be ours. */
  sock = fcntl(sock, F_DUPFD_CLOEXEC, KEPT - 10);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int signals = fcntl(signalfd(-1, &set, SFD_CLOEXEC), F_DUPFD_CLOEXEC, KEPT - 10);
  pid_t child = start(argv + 2, argv[1]);
  for (;;) {
    struct pollfd fds[] = { { sock, POLLIN, 0 }, { signals, POLLIN, 0 } };
    poll(fds, 2, -1);
    if (fds[0].revents) receive(sock);
    if (fds[1].revents) {
      struct signalfd_siginfo info;
      if (read(signals, &info, sizeof info) < 0) continue;
      kill(child, SIGTERM);
      while (waitpid(child, NULL, 0) < 0 && errno == EINTR);
      for (struct pollfd more = { sock, POLLIN, 0 }; poll(&more, 1, 0) > 0;) receive(sock);
      if (info.ssi_signo == SIGTERM) return 0;
      printf("restart with %d descriptors\n", stored);
      fflush(stdout);
      child = start(argv + 2, argv[1]);
    }
  }
}
