//! Servers on loopback that the test programs talk to, one thread each; they end with the test process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

fn serve(work: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind on loopback");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || work(connection));
        }
    });
    port
}

/// Sends everything back; FIN is answered with FIN.
pub fn echo() -> u16 {
    serve(|mut connection| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = connection.read(&mut buffer) {
            if connection.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

/// Says "bye" and sends FIN, then reads to the end.
pub fn farewell() -> u16 {
    serve(|mut connection| {
        let _ = connection.write_all(b"bye");
        let _ = connection.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
    })
}

/// Reads one byte, then resets the connection.
pub fn reset() -> u16 {
    serve(|mut connection| {
        let mut byte = [0];
        let _ = connection.read_exact(&mut byte);
        let _ = socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO));
    })
}

/// Sends without end, slowly.
pub fn drip() -> u16 {
    serve(|mut connection| {
        while connection.write_all(&[b'.'; 100]).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// Sends every datagram back.
pub fn udp_echo() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind on loopback");
    let port = socket.local_addr().expect("bound").port();
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    });
    port
}

/// A port nobody listens on.
pub fn refused() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind on loopback");
    listener.local_addr().expect("bound").port()
}
