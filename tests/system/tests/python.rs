//! Python programs: libraries people use, and the socket API in corners tools rarely reach.

use anyhow::Result;
use system_tests::Bench;

/// Runs a program both ways; it must end well and print `expected` both times.
fn check(program: &str, expected: &str) -> Result<()> {
    let outcome = Bench::up()?.same_python(program)?;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, expected), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn urllib_and_requests() -> Result<()> {
    check(
        "import urllib.request, requests\n\
         print(urllib.request.urlopen('http://www.lab/').status)\n\
         s = requests.Session()\n\
         print([s.get('http://www.lab/').status_code for _ in range(5)])\n\
         try: requests.get('http://www.lab:9/')\n\
         except requests.ConnectionError as e: print('refused' in str(e))\n",
        "200\n[200, 200, 200, 200, 200]\nTrue\n",
    )
}

#[test]
fn asyncio_fifty_connections_at_once() -> Result<()> {
    check(
        "import asyncio\n\
         async def one(i):\n\
         \x20   r, w = await asyncio.open_connection('target.lab', 7)\n\
         \x20   text = (b'%d ' % i) * 1000\n\
         \x20   w.write(text); w.write_eof()\n\
         \x20   got = await r.read(); w.close()\n\
         \x20   return got == text\n\
         async def all(): return await asyncio.gather(*[one(i) for i in range(50)])\n\
         print(sum(asyncio.run(all())))\n",
        "50\n",
    )
}

/// Writable must mean connected: not before, and with the endpoint's own error.
#[test]
fn nonblocking_connect_by_poll_select_and_epoll() -> Result<()> {
    check(
        "import socket, select, errno\n\
         def poll(s):\n\
         \x20   p = select.poll(); p.register(s, select.POLLOUT); return p.poll(3000) != []\n\
         def sel(s): return select.select([], [s], [], 3)[1] != []\n\
         def level(s):\n\
         \x20   e = select.epoll(); e.register(s, select.EPOLLOUT); return e.poll(3) != []\n\
         def edge(s):\n\
         \x20   e = select.epoll(); e.register(s, select.EPOLLOUT | select.EPOLLET); return e.poll(3) != []\n\
         def start(a):\n\
         \x20   s = socket.socket(); s.setblocking(False); return s, errno.errorcode[s.connect_ex(a)]\n\
         for wait in (poll, sel, level, edge):\n\
         \x20   for port in (80, 9):\n\
         \x20       s, code = start(('10.91.4.2', port))\n\
         \x20       print(wait.__name__, port, code, wait(s), s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))\n\
         s, code = start(('10.91.66.66', 80))\n\
         print('blackhole', code, select.select([], [s], [], 0.5)[1])\n",
        &(["poll", "sel", "level", "edge"]
            .iter()
            .map(|w| format!("{w} 80 EINPROGRESS True 0\n{w} 9 EINPROGRESS True 111\n"))
            .collect::<String>()
            + "blackhole EINPROGRESS []\n"),
    )
}

#[test]
fn sockets_survive_dup_fork_exec_and_scm_rights() -> Result<()> {
    check(
        "import socket, os, sys, subprocess\n\
         def talk(s, text): s.sendall(text); return s.recv(100)\n\
         s = socket.create_connection(('10.91.4.2', 7))\n\
         d = s.dup(); s.close(); print(talk(d, b'dup'))\n\
         print(d.getpeername(), d.type == socket.SOCK_STREAM, d.family == socket.AF_INET); sys.stdout.flush()\n\
         pid = os.fork()\n\
         if pid == 0:\n\
         \x20   print(talk(d, b'fork')); sys.stdout.flush(); os._exit(0)\n\
         os.waitpid(pid, 0)\n\
         code = 'import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(b\"exec\"); print(s.recv(100))'\n\
         subprocess.run([sys.executable, '-c', code, str(d.fileno())], pass_fds=[d.fileno()], close_fds=True)\n\
         a, b = socket.socketpair()\n\
         socket.send_fds(a, [b'x'], [d.fileno()]); d.close()\n\
         _, fds, _, _ = socket.recv_fds(b, 1, 1)\n\
         r = socket.socket(fileno=fds[0]); print(talk(r, b'rights'), r.getpeername())\n",
        "b'dup'\n('10.91.4.2', 7) True True\nb'fork'\nb'exec'\nb'rights' ('10.91.4.2', 7)\n",
    )
}

#[test]
fn a_program_that_closes_every_descriptor_still_works() -> Result<()> {
    check(
        "import os, socket\n\
         os.closerange(3, 65536)\n\
         s = socket.create_connection(('target.lab', 7)); s.sendall(b'closed'); print(s.recv(100))\n",
        "b'closed'\n",
    )
}

#[test]
fn datagrams_keep_their_bounds_and_addresses() -> Result<()> {
    check(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n\
         for size in (0, 1, 1400, 9000):\n\
         \x20   s.sendto(b'x' * size, ('10.91.4.2', 7)); data, peer = s.recvfrom(65536); print(len(data), peer)\n\
         s.sendto(b'truncated', ('10.91.4.2', 7)); print(s.recvmsg(4)[0], bool(s.getsockname()[1]))\n\
         c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); c.settimeout(5)\n\
         c.connect(('fd91:0:0:4::2', 7)); c.send(b'six'); print(c.recv(100), c.getpeername()[:2])\n\
         try: s.sendto(b'x' * 65508, ('10.91.4.2', 7))\n\
         except OSError as e: print(e.errno)\n",
        "0 ('10.91.4.2', 7)\n1 ('10.91.4.2', 7)\n1400 ('10.91.4.2', 7)\n9000 ('10.91.4.2', 7)\nb'trun' True\n\
         b'six' ('fd91:0:0:4::2', 7)\n90\n",
    )
}

#[test]
fn a_closed_port_is_an_error_of_the_connected_socket() -> Result<()> {
    check(
        "import socket\n\
         for family, host in ((socket.AF_INET, '10.91.4.2'), (socket.AF_INET6, 'fd91:0:0:4::2')):\n\
         \x20   c = socket.socket(family, socket.SOCK_DGRAM); c.settimeout(5); c.connect((host, 9))\n\
         \x20   for attempt in range(2):\n\
         \x20       c.send(b'x')\n\
         \x20       try: print(c.recv(100))\n\
         \x20       except OSError as e: print(e.errno)\n\
         \x20   c.connect((host, 7)); c.send(b'open'); print(c.recv(100))\n\
         \x20   u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(5)\n\
         \x20   u.sendto(b'x', (host, 9)); u.sendto(b'other', (host, 7)); print(u.recvfrom(100)[0])\n",
        "111\n111\nb'open'\nb'other'\n111\n111\nb'open'\nb'other'\n",
    )
}

#[test]
fn names() -> Result<()> {
    check(
        "import socket\n\
         print(sorted({a[4][0] for a in socket.getaddrinfo('www.lab', 80)}))\n\
         print(socket.gethostbyname('www.lab'), socket.gethostbyaddr('10.91.4.2')[0].endswith('.lab'))\n\
         for f in (lambda: socket.getaddrinfo('not-there.lab', 80), lambda: socket.gethostbyname('not-there.lab')):\n\
         \x20   try: f()\n\
         \x20   except socket.gaierror as e: print(e.errno)\n\
         print(socket.getaddrinfo('127.0.0.1', 'http', type=socket.SOCK_STREAM)[0][4])\n",
        "['10.91.4.2', 'fd91:0:0:4::2']\n10.91.4.2 True\n-2\n-2\n('127.0.0.1', 80)\n",
    )
}
