//! Servers with one simple habit each, most of them bad: what clients must be able to cope with.

use std::io::{Read, Result, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

/// Port of the echo server, TCP and UDP.
pub const ECHO: u16 = 7;
/// Nothing listens here.
pub const REFUSED: u16 = 9;
/// Resets the connection when a request has arrived.
pub const RESET: u16 = 8081;
/// Answers, closes its sending side, and reads on until the client closes.
pub const HALF_CLOSE: u16 = 8082;
/// Accepts and never answers.
pub const SILENT: u16 = 8083;
/// Closes without an answer when a request has arrived.
pub const CLOSE: u16 = 8084;

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Sends back what it receives (also on UDP).
    Echo,
    /// See [`RESET`].
    Reset,
    /// See [`HALF_CLOSE`].
    HalfClose,
    /// See [`SILENT`].
    Silent,
    /// See [`CLOSE`].
    Close,
}

/// All habits on their usual ports, as arguments of `netlab serve`.
pub fn usual() -> Vec<String> {
    [("echo", ECHO), ("reset", RESET), ("halfclose", HALF_CLOSE), ("silent", SILENT), ("close", CLOSE)]
        .iter()
        .map(|(habit, port)| format!("{habit}={port}"))
        .collect()
}

/// One server: `HABIT=PORT`.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    habit: Habit,
    port: u16,
}

impl FromStr for Server {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Server> {
        let (habit, port) = text.split_once('=').context("expected HABIT=PORT")?;
        let habit = match habit {
            "echo" => Habit::Echo,
            "reset" => Habit::Reset,
            "halfclose" => Habit::HalfClose,
            "silent" => Habit::Silent,
            "close" => Habit::Close,
            _ => bail!("unknown habit {habit:?}: echo, reset, halfclose, silent or close"),
        };
        Ok(Server { habit, port: port.parse().context("not a port")? })
    }
}

/// Runs servers on all addresses, IPv4 and IPv6, until killed. Prints one line when all listen.
pub fn run(servers: &[Server]) -> Result<()> {
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut threads = Vec::new();
    for server in servers {
        let address = SocketAddr::new(any, server.port);
        // std listens on both families with an IPv6 wildcard (IPV6_V6ONLY is off unless the system says otherwise).
        let listener = TcpListener::bind(address)?;
        let habit = server.habit;
        threads.push(thread::spawn(move || accept(&listener, habit)));
        if habit == Habit::Echo {
            let socket = UdpSocket::bind(address)?;
            threads.push(thread::spawn(move || echo_udp(&socket)));
        }
    }
    println!("serving");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener, habit: Habit) {
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                thread::spawn(move || {
                    // The client may end the connection in any way; that is its business.
                    let _ = serve(connection, habit);
                });
            }
            // Out of descriptors or the like: let others finish.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn serve(mut connection: TcpStream, habit: Habit) -> Result<()> {
    let mut buffer = vec![0; 65536];
    match habit {
        Habit::Echo => loop {
            let got = connection.read(&mut buffer)?;
            if got == 0 {
                return Ok(());
            }
            connection.write_all(&buffer[..got])?;
        },
        Habit::Reset => {
            let _ = connection.read(&mut buffer)?;
            // Zero linger time makes the close a reset.
            socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO))
        }
        Habit::HalfClose => {
            let _ = connection.read(&mut buffer)?;
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf closed\n")?;
            connection.shutdown(Shutdown::Write)?;
            while connection.read(&mut buffer)? > 0 {}
            Ok(())
        }
        Habit::Silent => {
            while connection.read(&mut buffer)? > 0 {}
            Ok(())
        }
        Habit::Close => connection.read(&mut buffer).map(|_| ()),
    }
}

fn echo_udp(socket: &UdpSocket) {
    let mut buffer = vec![0; 65536];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let _ = socket.send_to(&buffer[..length], from);
            }
            // An error a client caused (port unreachable); the socket itself is fine.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
