//! A way for clients of plain connections to speak to a port with TLS: `openssl s_client` between.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use super::process::{self, Signal};

/// Takes plain connections on a port and passes what they carry on to another, encrypted.
pub struct Tunnel {
    port: u16,
}

impl Tunnel {
    /// Opens a tunnel to the loopback port. It ends with the process.
    pub fn to(tls_port: u16) -> Self {
        Tunnel::with(tls_port, &[])
    }

    /// Opens a tunnel whose far end speaks HTTP/2.
    pub fn to_http2(tls_port: u16) -> Self {
        Tunnel::with(tls_port, &["-alpn", "h2"])
    }

    fn with(tls_port: u16, options: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || carry(stream, tls_port, options));
            }
        });
        Tunnel { port }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Ends all tunnels of this process whose clients have gone. One may not have noticed: with more to pass on than the
/// server takes, it does not look.
pub fn end_tunnels() {
    for child in process::children(std::process::id() as i32) {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        if name.trim() == "openssl" {
            process::signal(child, Signal::KILL);
        }
    }
}

fn carry(mut plain: TcpStream, tls_port: u16, options: &[&str]) {
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{tls_port}")])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs; on Debian: apt-get install openssl");
    let mut to = openssl.stdin.take().expect("a pipe");
    let mut from = openssl.stdout.take().expect("a pipe");
    let mut back = plain.try_clone().expect("a socket");
    let returning = thread::spawn(move || {
        let _ = copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut plain, &mut to);
    let _ = openssl.kill();
    let _ = openssl.wait();
    let _ = returning.join();
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; 65536];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            length => {
                to.write_all(&bytes[..length])?;
                to.flush()?;
            }
        }
    }
}
